"""What several rooms' tests share: the embedded digits, cut down, and commands run in this process."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.bench.latency import measure_latency
from onnxadmm.cli import main
from onnxadmm.demo import DemoFiles, demo_files
from onnxadmm.operators import outside, table
from tests.shared import SCALE2, compiled


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--networks", type=int, default=300, help="random networks of all operators that are pruned")


@pytest.fixture
def networks(request: pytest.FixtureRequest) -> int:
    """How many random networks of all operators are pruned."""
    return int(request.config.getoption("--networks"))


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit status, and what it wrote to stdout and stderr."""

    status: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


def run_command(*words: object) -> Ran:
    """Run ``onnxadmm`` with some words in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main([str(word) for word in words])
    return Ran(status, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def command() -> Command:
    """Run ``onnxadmm`` with some words in this process."""
    return run_command


@pytest.fixture(scope="module")
def quick_latency() -> Iterator[None]:
    """Time models for a tenth of a second instead of three in the report of a run: how long they take is not tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.run.measure.measure_latency", partial(measure_latency, seconds=0.1))
        yield


@pytest.fixture(scope="session")
def scale2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the custom operator com.example::Scale2, y = 2 x."""
    return compiled(SCALE2.read_text(), tmp_path_factory.mktemp("scale2") / "libscale2.so")


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


@pytest.fixture
def restored_table() -> Iterator[None]:
    """Whatever a test declares or plants in the table of operators is gone after it."""
    kept = {(entry.domain, entry.name): entry for entry in table.operators()}
    known, loaded = dict(outside._sources), set(outside._loaded)
    yield
    table._TABLE.clear()
    table._TABLE.update(kept)
    outside._sources.clear()
    outside._sources.update(known)
    outside._loaded.clear()
    outside._loaded.update(loaded)
