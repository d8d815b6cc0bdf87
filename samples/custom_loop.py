"""Compress from Python: batches of one's own, preprocessing of one's own, and somebody who listens to the run.

Run: ``python samples/custom_loop.py [OUT]``. Uses the digits in samples/digits. Exits with 1 below its bar: at least
3x fewer multiply-accumulates with at most 1 point of test accuracy lost.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.progress import Iteration

FOLDER = Path(__file__).resolve().parent / "digits"
RECIPE = oa.Recipe(epochs=20, retrain_epochs=40, batch_size=64)
FEWER_MACS = 3.0
POINTS_LOST = 1.0

Batch = dict[str, NDArray[np.float32] | NDArray[np.int64]]


class Loader:
    """Whatever yields batches will do: this one, a generator, or a PyTorch DataLoader.

    Each batch is a mapping from the model's input to its samples, and ``labels``; a pair of arrays would do as well.
    """

    def __init__(self, path: Path, *, batch_size: int) -> None:
        with np.load(path) as archive:
            self._images, self._labels = archive["images"], archive["labels"]
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._labels), self._batch_size):
            chosen = slice(start, start + self._batch_size)
            yield {"image": prepare(self._images[chosen]), "labels": self._labels[chosen].astype(np.int64)}


class Listener:
    """A progress of one's own: a line whenever a stage begins, and the last iteration of each."""

    def __init__(self) -> None:
        self._last: Iteration | None = None

    def stage(self, name: str, *, total: int | None = None) -> None:
        if self._last is not None:
            accuracy = "not measured" if self._last.heldout is None else f"{self._last.heldout:.4f}"
            print(f"  loss {self._last.loss:.4f}, held-out accuracy {accuracy}")
        self._last = None
        print(name)

    def advance(self, steps: int = 1) -> None:
        """Nobody counts steps here."""

    def iteration(self, row: Iteration) -> None:
        self._last = row

    def note(self, sentence: str) -> None:
        print(f"  {sentence}")


def prepare(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Preprocess uint8 ``[N, 8, 8]`` with values 0 to 16 to what the network was trained on, ``[N, 1, 8, 8]``."""
    return images[:, None].astype(np.float32) / np.float32(16)


def accuracy(model: Path, loader: Loader) -> float:
    """Share of right classes, through onnxruntime alone."""
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    right = [session.run(None, {"image": batch["image"]})[0].argmax(1) == batch["labels"] for batch in loader]
    return float(np.concatenate(right).mean())


def run(out: Path) -> int:
    """Compress into ``out`` and hold the result to the bar."""
    model, training = FOLDER / "digits.onnx", Loader(FOLDER / "digits-train.npz", batch_size=100)
    for group in oa.find_groups(model).groups:
        print(f"{group.name}: {group.count} units may go")
    report = oa.compress(
        model,
        data=training,
        budget=oa.Budget(macs=0.2),
        recipe=RECIPE,
        out=out,
        force=True,
        progress=Listener(),
    )
    test = Loader(FOLDER / "digits-test.npz", batch_size=250)
    before, after = accuracy(model, test), accuracy(out / "model.onnx", test)
    fewer = (report.before.macs or 0) / max(1, report.after.macs or 0)
    print(f"{fewer:.2f}x fewer multiply-accumulates, test accuracy {before:.4f} -> {after:.4f}")
    return 0 if fewer >= FEWER_MACS and 100 * (before - after) <= POINTS_LOST + 1e-9 else 1


def main() -> int:
    """Run in the folder given, or in a temporary one."""
    if len(sys.argv) > 1:
        return run(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
