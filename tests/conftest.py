"""What several rooms' tests share: the embedded digits, cut down, and commands run in this process."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.cli import main
from onnxadmm.demo import DemoFiles, demo_files


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit status, and what it wrote to stdout and stderr."""

    status: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``onnxadmm`` with some words in this process."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def digits() -> DemoFiles:
    """The embedded network and data."""
    return demo_files()


@pytest.fixture(scope="session")
def few_digits(digits: DemoFiles) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first 640 training images as the network reads them, float32 ``[640, 1, 8, 8]`` from 0 to 1, and labels."""
    with np.load(digits.training) as archive:
        images, labels = archive["images"][:640], archive["labels"][:640]
    return (images[:, None] / np.float32(16)).astype(np.float32), labels.astype(np.int64)
