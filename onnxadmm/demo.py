"""The demo's embedded files: a trained network for handwritten digits, and the data it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnxadmm.errors import InputError

#: Stored pixel values run from 0 to 16; the network reads them on the 0-1 scale.
SCALE: Final = 1 / 16

_HERE: Final = Path(__file__).resolve().parent
# An installed package carries the files inside; in a checkout they stand beside it.
_FOLDERS: Final = (_HERE / "samples" / "digits", _HERE.parent / "samples" / "digits")


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's files are.

    Attributes:
        model: the network, float32 ``[N, 1, 8, 8]`` to logits ``[N, 10]``.
        training: 1,297 images uint8 ``[8, 8]`` with values 0 to 16, and their labels 0 to 9.
        test: 500 more, which no training has seen.
    """

    model: Path
    training: Path
    test: Path


def demo_files() -> DemoFiles:
    """Return the paths of the demo's files.

    Raises:
        InputError: they are missing from this installation.
    """
    for folder in _FOLDERS:
        files = DemoFiles(folder / "digits.onnx", folder / "digits-train.npz", folder / "digits-test.npz")
        if all(path.is_file() for path in (files.model, files.training, files.test)):
            return files
    raise InputError(
        "the demo",
        expected="its files in samples/digits",
        found="none",
        way_out="install the package again",
    )
