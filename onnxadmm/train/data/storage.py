"""Where decoded samples are stored: in memory up to a limit, in a temporary file beyond it."""

import math
import shutil
import tempfile
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
