"""Answers of the teacher to samples that come as they are in every epoch: in memory, or on a disk for later runs."""

import hashlib
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.cache import checksum, mapped_file

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int64]

#: Changes with what is stored for the same samples.
_FORMAT: Final = "answers 1"
#: What the name of the file begins with that holds them.
_LOGITS: Final = "logits-"


class Answers:
    """Logits of samples of one origin, float32 in memory.

    Args:
        origin: what the samples' numbers count; it is held, so that no other object takes its identity.
    """

    def __init__(self, origin: object) -> None:
        self._origin = origin
        self._known = np.zeros(0, bool)
        self._logits = np.zeros((0, 0), np.float32)

    def find(self, indices: IndexArray) -> FloatArray | None:
        """Return logits of samples, or None unless all of them are here."""
        if int(indices.max()) >= len(self._known) or not self._known[indices].all():
            return None
        return np.asarray(self._logits[indices], np.float32)

    def store(self, indices: IndexArray, logits: FloatArray) -> FloatArray:
        """Keep logits, growing as numbers grow; return them as ``find`` will."""
        size = int(indices.max()) + 1
        if size > len(self._known):
            length = max(size, 2 * len(self._known))
            known, kept = np.zeros(length, bool), np.empty((length, *logits.shape[1:]), np.float32)
            known[: len(self._known)] = self._known
            if len(self._known):
                kept[: len(self._logits)] = self._logits
            self._known, self._logits = known, kept
        self._logits[indices] = logits
        self._known[indices] = True
        return logits


class AnswersOnDisk(Answers):
    """Logits of the samples of a data set in half precision, in files that the next run finds.

    What is given out is rounded to half precision from the first time on, so that a run that finds its answers is the
    same as one that asks. Each answer is stored with the sum of its bytes: one that a run left half written is asked
    for again. Answers that half precision cannot hold (above 65,504) are not kept.

    Args:
        data: the samples.
        folder: of all answers; these have a folder of their own in it, named after what they depend on.
        teacher: whatever tells the network from others, and what of it answers.
    """

    def __init__(self, data: ArrayDataset, folder: Path, *, teacher: bytes) -> None:
        super().__init__(data.inputs)
        total = hashlib.sha256(_FORMAT.encode() + b"\0" + teacher)
        data.digest(total)
        total.update(np.ascontiguousarray(data.order).data)
        for name, transform in sorted(data.transforms.items()):
            total.update(f"{name}\0{transform.dtype}\0".encode())
            for part in (transform.factor, transform.offset):
                total.update(b"\0" if part is None else np.ascontiguousarray(part).tobytes())
        for name, array in sorted(data.held.items()):
            total.update(name.encode() + np.ascontiguousarray(array).tobytes())
        self.folder = folder / f"answers-{total.hexdigest()[:32]}"
        self._count = 1 + int(data.order.max(initial=0))
        self._rows: NDArray[Any] | None = None
        for there in self.folder.glob(f"{_LOGITS}*"):  # of one shape, which the name tells
            self._open(tuple(int(length) for length in there.name.removeprefix(_LOGITS).split("x") if length))

    def find(self, indices: IndexArray) -> FloatArray | None:
        """Return logits of samples, or None unless all of them are here, and whole."""
        if self._rows is None or not self._sums[indices].all():
            return None
        found = np.array(self._rows[indices])
        if any(checksum(row) != kept for row, kept in zip(found, self._sums[indices], strict=True)):
            return None
        return found.astype(np.float32)

    def store(self, indices: IndexArray, logits: FloatArray) -> FloatArray:
        """Keep logits; return them as ``find`` will.

        Raises:
            DataError: the disk has not enough space, or the folder cannot be written to.
        """
        rows = self._open(logits.shape[1:]) if self._rows is None else self._rows
        with np.errstate(over="ignore"):
            half = logits.astype(np.float16)
        held = np.isfinite(half).reshape(len(half), -1).all(axis=1)
        rows[indices[held]] = half[held]
        self._sums[indices[held]] = [checksum(row) for row in half[held]]
        return np.where(held.reshape(-1, *[1] * (logits.ndim - 1)), half.astype(np.float32), logits)

    def _open(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Map the files of answers of a shape, which are made where they are not."""
        what, name = "the teacher's answers", _LOGITS + "x".join(map(str, shape))
        flat = mapped_file(self.folder, name, np.float16, self._count * math.prod(shape), what=what)
        self._sums = mapped_file(self.folder, "sums", np.uint32, self._count, what=what)
        self._rows = flat.reshape(self._count, *shape)
        return self._rows
