"""Memory that several processes read and write, and how arrays lie in it.

The memory has no name in any file system and vanishes with the last process that has it, however that one ends: an
unlinked file whose descriptor children inherit, on Windows a mapping backed by the page file. (The standard library's
``multiprocessing.shared_memory`` registers every attachment with a tracker process, which removes what others use.)
"""

import mmap
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import WorkerError

AnyArray = NDArray[Any]
FloatArray = NDArray[np.float32]
Bytes = NDArray[np.uint8]

#: Arrays start at multiples of this many bytes, which vector kernels like.
ALIGNMENT = 64


@dataclass(frozen=True)
class Section:
    """An array in a block of memory.

    Attributes:
        dtype: as numpy writes it, ``"<f4"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Length, up to where the next one may start."""
        size = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return -(-size // ALIGNMENT) * ALIGNMENT


def lay_out(sections: Sequence[Section], memory: Bytes) -> dict[str, AnyArray]:
    """The arrays in a block that holds them one behind the other, by name."""
    arrays: dict[str, AnyArray] = {}
    start = 0
    for section in sections:
        arrays[section.name] = np.ndarray(section.shape, section.dtype, memory, start)
        start += section.bytes
    return arrays


def flat_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Float32 elements of a buffer for arrays of these shapes, each aligned."""
    return sum(Section(name, shape, "<f4").bytes for name, shape in shapes.items()) // 4


def flat_views(shapes: Mapping[str, tuple[int, ...]], flat: FloatArray) -> dict[str, FloatArray]:
    """The float32 arrays of these shapes in such a buffer, by name."""
    return lay_out([Section(name, shape, "<f4") for name, shape in shapes.items()], flat.view(np.uint8))


def private_memory(size: int) -> Bytes:
    """Zeroed memory of this process alone, aligned."""
    whole = np.zeros(size + ALIGNMENT, np.uint8)
    shift = -whole.ctypes.data % ALIGNMENT
    return whole[shift : shift + size]


class SharedBlock:
    """Zeroed memory that children attach to by its ``key``.

    Args:
        size: bytes.

    Raises:
        WorkerError: there is not that much room.
    """

    def __init__(self, size: int) -> None:
        self._descriptor: int | None = None
        try:
            if sys.platform == "win32":
                self.key = f"onnxadmm-{uuid.uuid4()}"
                self.memory: Bytes = attach(self.key, size)
            else:
                self._descriptor = _unlinked_file(size)
                self.key = str(self._descriptor)
                self.memory = attach(self.key, size)
        except (OSError, ValueError, OverflowError) as error:
            self.release()
            raise WorkerError(
                "shared memory of the workers",
                expected=f"{size:,} bytes",
                found=f"no room ({error})",
                way_out="use a smaller --batch-size, or --workers 1, which needs none",
            ) from error

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child must inherit."""
        return () if self._descriptor is None else (self._descriptor,)

    def release(self) -> None:
        """Let no further child attach; the memory stays as long as an array of it does."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def attach(key: str, size: int) -> Bytes:
    """The memory of a block."""
    if sys.platform == "win32":
        return np.frombuffer(mmap.mmap(-1, size, tagname=key), np.uint8)
    return np.frombuffer(mmap.mmap(int(key), size), np.uint8)


def _unlinked_file(size: int) -> int:
    """A descriptor of a file of this size without a name, in memory where the system has such files."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("onnxadmm")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        if sys.platform == "linux":
            # Without room a later write would kill the process; asked for now, it is an error.
            os.posix_fallocate(descriptor, 0, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
