"""Where decoded samples are stored: in memory up to a limit, in a temporary file beyond it."""

import math
import mmap
import shutil
import tempfile
import weakref
from io import BufferedRandom
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnxadmm.errors import DataError

Array = NDArray[Any]

#: Rows that are moved at a time, so that a change of layout needs little memory beside the array itself.
_ROWS = 1024


def allocate(name: str, shape: tuple[int, ...], dtype: DTypeLike, *, limit: int) -> Array:
    """An array to fill, all zeros or undefined.

    Up to ``limit`` bytes it lies in memory. A larger one is mapped from a temporary file without a name, which goes
    with the array; the operating system keeps in memory what fits and is read often.

    Args:
        name: what messages call the data.
        limit: bytes.

    Raises:
        DataError: the temporary folder has not enough space.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= limit:
        return np.empty(shape, dtype)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise DataError(
            name,
            expected=f"{size / 2**30:.3g} GiB for the decoded samples, in memory or in the temporary folder",
            found=f"a limit of {limit / 2**30:.3g} GiB in memory and {free / 2**30:.3g} GiB free in the folder",
            way_out="give fewer or smaller samples, or point TMPDIR to a larger disk",
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def is_mapped(array: Array) -> bool:
    """Whether an array lies in a file, and not in memory."""
    base: object = array
    while base is not None:
        if isinstance(base, (np.memmap, mmap.mmap)):
            return True
        base = getattr(base, "base", None)
    return False


def transposed_copy(name: str, array: Array, axes: tuple[int, ...], *, limit: int) -> Array:
    """A contiguous copy of ``array.transpose(axes)``; axis 0 stays in front.

    Raises:
        DataError: as ``allocate`` does.
    """
    view = array.transpose(axes)
    copy = allocate(name, view.shape, view.dtype, limit=limit)
    for start in range(0, len(view), _ROWS):
        copy[start : start + _ROWS] = view[start : start + _ROWS]
    return copy


class Growing:
    """Samples that come one after the other, whose number nobody knows: in memory up to a limit, then in a file.

    Args:
        name: what messages call the data.
        limit: most bytes in memory.
    """

    def __init__(self, name: str, *, limit: int) -> None:
        self._name, self._limit = name, limit
        self._parts: list[Array] = []
        self._file: BufferedRandom | None = None
        self._dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._count = self._bytes = 0
        # Whoever repeats for ever is told before the disk is full.
        self._most = limit + shutil.disk_usage(tempfile.gettempdir()).free // 2

    def append(self, samples: Array) -> None:
        """Add samples behind the others, a copy of them.

        Args:
            samples: of the shape and dtype of those before, samples on axis 0.

        Raises:
            DataError: they differ in that, or the disk would be full.
        """
        if self._dtype is None:
            self._dtype, self._shape = samples.dtype, samples.shape[1:]
        dtype = np.result_type(self._dtype, samples.dtype)
        if samples.shape[1:] != self._shape or (dtype != self._dtype and self._file is not None):
            raise DataError(
                self._name,
                expected=f"samples of shape {list(self._shape)} and dtype {self._dtype}, as those before",
                found=f"shape {list(samples.shape[1:])} and dtype {samples.dtype}",
                way_out="bring all samples to one shape, token ids by padding",
            )
        self._dtype = dtype
        self._count += len(samples)
        self._bytes += samples.nbytes
        if self._bytes > self._most:
            raise DataError(
                self._name,
                expected=f"at most {self._most / 2**30:.3g} GiB, in memory and in the temporary folder",
                found=f"more after {self._count:,} samples",
                way_out="give fewer samples, uint8 images, or a folder or file; or point TMPDIR to a larger disk",
            )
        self._parts.append(np.array(samples))
        if self._bytes > self._limit:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # an array that is mapped from it keeps its content
            weakref.finalize(self, self._file.close)
        for part in self._parts:
            self._file.write(np.ascontiguousarray(part, self._dtype).data)
        self._parts = []

    def finished(self) -> Array:
        """All samples; mapped from the file where there is one."""
        if self._file is None or self._dtype is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._file.flush()
        found: Array = np.memmap(self._file, self._dtype, "r+", shape=(self._count, *self._shape))
        return found
