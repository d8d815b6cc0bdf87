"""A folder of decoded pictures, so that each is decoded once and not in every epoch and every run."""

import hashlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.pictures import Framing, crop_of, decode

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

#: Changes with what is stored for the same pictures.
_FORMAT: Final = "1"


class Cache:
    """Decoded pictures in a file, each there once it was needed.

    A picture is stored with the sum of its bytes: one that was written in part, by a run that was killed, is decoded
    anew. Runs that fill the same folder at the same time write the same.

    Args:
        folder: of all caches; this one has a folder of its own in it, named after the digest of its pictures.
        framing: how pictures become pixels; with a size.
        contents: digest of each picture, uint64 ``[N, 2]``.
        sizes: height and width of each, int32 ``[N, 2]``, 0 where it is damaged.
        whole: whether whole pictures are kept, resized, that random parts are cut out of; otherwise their middle.

    Raises:
        DataError: the disk has not enough space, or the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        framing: Framing,
        contents: NDArray[np.uint64],
        sizes: NDArray[np.int32],
        *,
        whole: bool,
    ) -> None:
        assert framing.size is not None  # pictures without one are small, and lie in memory
        self._framing, self._whole = framing, whole
        order = np.lexsort((contents[:, 1], contents[:, 0]))
        #: By number of the picture its place in the file, which its content decides.
        self._places = np.empty(len(order), np.int64)
        self._places[order] = np.arange(len(order))
        self._shapes = np.tile(np.array(framing.size, np.int32), (len(order), 1))
        if whole:
            self._shapes = np.array(
                [framing.scaled(*map(int, size)) if size[0] else (0, 0) for size in sizes], np.int32
            )
        lengths = self._shapes[order].astype(np.int64).prod(axis=1) * framing.channels
        ends = np.cumsum(lengths)
        self._starts = (ends - lengths)[self._places]
        total = hashlib.sha256(f"{_FORMAT} {framing} {whole}".encode())
        total.update(np.ascontiguousarray(contents[order]).data)
        self.folder = folder / total.hexdigest()[:32]
        what = "the decoded images"
        self._store = mapped_file(self.folder, "pixels", np.uint8, int(ends[-1]), what=what)
        self._sums = mapped_file(self.folder, "sums", np.uint32, len(order), what=what)

    def pixels(self, number: int, encoded: Callable[[], bytes], name: str, box: FloatArray | None) -> Array:
        """Return a picture, uint8 ``[H, W, C]``, and keep it.

        Args:
            number: of the picture.
            encoded: reads its file.
            name: what messages call it.
            box: as for ``decode``.

        Raises:
            DamagedError, DataError: as ``decode`` does.
            OSError: the file cannot be read.
        """
        place = int(self._places[number])
        height, width = map(int, self._shapes[number])
        stored = self._store[self._starts[number] :][: height * width * self._framing.channels]
        found = np.array(stored)
        if not self._sums[place] or self._sums[place] != checksum(found):
            found = decode(encoded(), self._framing, name=name, whole=self._whole).reshape(-1)
            stored[:] = found
            self._sums[place] = checksum(found)
        kept = found.reshape(height, width, self._framing.channels)
        return crop_of(kept, self._framing, box) if self._whole else kept


def checksum(array: Array) -> int:
    """A number above 0 that tells whether all bytes are there."""
    return zlib.crc32(np.ascontiguousarray(array).data) or 1


def mapped_file(folder: Path, name: str, dtype: type[np.generic], length: int, *, what: str) -> Array:
    """Return a file of a cache as an array ``[length]``, zeros where it is new.

    Args:
        folder: of one content, in the folder of ``--cache``.
        what: is in it, in words.

    Raises:
        DataError: the disk has not enough space, or the folder cannot be written to.
    """
    path = folder / name
    wanted = length * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = path.is_file() and path.stat().st_size == wanted
        free = shutil.disk_usage(folder).free
        if not there and wanted > free:
            raise DataError(
                f"--cache {folder.parent}",
                expected=f"{wanted / 2**30:.3g} GiB for {what}",
                found=f"{free / 2**30:.3g} GiB free",
                way_out="give a folder on a larger disk, or leave the cache out",
            )
        with path.open("ab") as file:  # beside others that make it at the same time
            file.truncate(wanted)
        return np.memmap(path, dtype, "r+", shape=(length,))
    except OSError as error:
        raise DataError(
            f"--cache {folder.parent}",
            expected="a folder that can be written to",
            found=str(error),
            way_out="give another",
        ) from error
