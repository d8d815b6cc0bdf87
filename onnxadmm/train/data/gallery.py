"""Pictures that are decoded when they are needed: an array of them that does not lie in memory."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.cache import Cache
from onnxadmm.train.data.pictures import DamagedError, Framing, Look, decode, look
from onnxadmm.train.data.shelves import Shelf

Array = NDArray[Any]
IndexArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Contents = NDArray[np.uint64]

#: Pictures that are under way before the first of them is waited for.
_AT_ONCE: Final = 1024
#: Bytes of a digest of a picture's content.
_CONTENT_BYTES: Final = 16
#: Damaged pictures that are named.
_NAMED: Final = 5


class Damage:
    """Pictures that are left out because they cannot be decoded, up to a share of all.

    Args:
        source: what messages call the data.
        count: pictures there are.
        share: of them that may be damaged.
    """

    def __init__(self, source: str, count: int, share: float) -> None:
        self._source, self._count, self._share = source, count, share
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, place: int, name: str, reason: str) -> None:
        """Count a picture, once.

        Raises:
            DataError: there are more than may be.
        """
        with self._lock:
            self._reasons.setdefault(place, f"{name} ({reason})")
            if len(self._reasons) <= self._share * self._count:
                return
            raise DataError(
                self._source,
                expected=f"an image in every file, or at most {100 * self._share:g} % that are damaged",
                found=f"{len(self._reasons)} of {self._count:,}: {self._named()}",
                way_out="remove or repair them, or allow more with --max-bad",
            )

    def __contains__(self, place: int) -> bool:
        return place in self._reasons

    def describe(self) -> str:
        """A sentence on what was left out; empty where nothing was."""
        if not self._reasons:
            return ""
        return f"{len(self._reasons):,} of {self._count:,} images were left out: {self._named()}."

    def _named(self) -> str:
        reasons = [self._reasons[place] for place in sorted(self._reasons)]
        more = len(reasons) - _NAMED
        return "; ".join(reasons[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Survey:
    """What was found by reading every picture once.

    Attributes:
        contents: digest of the bytes of each, uint64 ``[N, 2]``.
        sizes: height and width of each, the right way up, int32 ``[N, 2]``; 0 where it is damaged.
        whole: which of them are not damaged, bool ``[N]``.
        notes: sentences on what is done to some of them.
    """

    contents: Contents
    sizes: NDArray[np.int32]
    whole: BoolArray
    notes: tuple[str, ...]

    @property
    def order(self) -> IndexArray:
        """Those that are whole, in an order that only their contents decide: not names, and not what they lie in."""
        found = np.flatnonzero(self.whole)
        return found[np.lexsort((self.contents[found, 1], self.contents[found, 0]))]


def survey(shelf: Shelf, framing: Framing, damage: Damage, *, read_ahead: int = _AT_ONCE) -> Survey:
    """Read every picture once: its content's digest, its size, and whether it is one.

    Args:
        read_ahead: pictures that are read at once, at most.

    Raises:
        DataError: too many are damaged, or sizes differ where ``framing`` has none.
    """
    count = len(shelf.names)
    contents = np.zeros((count, 2), np.uint64)
    sizes = np.zeros((count, 2), np.int32)
    odd: Counter[str] = Counter()

    def examine(place: int) -> tuple[bytes, Look | str]:
        try:
            encoded = shelf.read(place)
        except OSError as error:
            return b"", f"it cannot be read: {error}"
        digest = hashlib.blake2b(encoded, digest_size=_CONTENT_BYTES).digest()
        try:
            return digest, look(encoded, framing, name=shelf.names[place])
        except DamagedError as error:
            return digest, str(error)

    for place, (digest, found) in enumerate(_in_threads(examine, count, read_ahead)):
        if isinstance(found, str):
            damage.add(place, shelf.names[place], found)
            continue
        contents[place] = np.frombuffer(digest, ">u8")
        sizes[place] = found.height, found.width
        odd.update(found.odd)
        if framing.size is None and (found.height, found.width) != tuple(_first_size(sizes)):
            first = _first_size(sizes)
            raise DataError(
                shelf.names[place],
                expected=f"{first[1]}x{first[0]} pixels as {shelf.names[int(np.argmax(sizes[:, 0] > 0))]}",
                found=f"{found.width}x{found.height}",
                way_out="give --crop N, as the model's input is open, or resize all images to one size",
            )
    notes = tuple(f"{number:,} of {count:,} images {change}." for change, number in odd.items())
    return Survey(contents, sizes, sizes[:, 0] > 0, notes)


def _first_size(sizes: NDArray[np.int32]) -> tuple[int, int]:
    height, width = sizes[int(np.argmax(sizes[:, 0] > 0))]
    return int(height), int(width)


def _in_threads(work: Callable[[int], Any], count: int, at_once: int = _AT_ONCE) -> Iterator[Any]:
    """Results for the numbers below ``count``, in their order; decoders work outside the interpreter's lock."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, count, at_once):
            yield from pool.map(work, range(start, min(start + at_once, count)))


class Pictures:
    """An array of pictures that lie encoded on a disk: uint8 ``[N, H, W, C]`` or ``[N, C, H, W]``.

    Args:
        shelf: the encoded pictures.
        framing: how they become pixels.
        found: by reading all of them once.
        damage: where those that cannot be decoded after all are counted.
        cache: of decoded pictures; None: none.
        channels_first: the order of the axes.
    """

    dtype: Final = np.dtype(np.uint8)

    def __init__(
        self,
        shelf: Shelf,
        framing: Framing,
        found: Survey,
        damage: Damage,
        *,
        cache: Cache | None = None,
        channels_first: bool = False,
    ) -> None:
        self._shelf, self._framing, self._found, self._cache = shelf, framing, found, cache
        self._channels_first = channels_first
        self.damage = damage

    def __len__(self) -> int:
        return len(self._found.whole)

    @property
    def contents(self) -> Contents:
        """Digest of each picture's file, uint64 ``[N, 2]``."""
        return self._found.contents

    @property
    def order(self) -> IndexArray:
        """Those that are no damaged ones, in an order of their contents, int64."""
        return self._found.order

    @property
    def framing(self) -> Framing:
        """How they become pixels."""
        return self._framing

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        height, width = self._framing.size or _first_size(self._found.sizes)
        sample = (height, width, self._framing.channels)
        return (len(self), *((sample[2], *sample[:2]) if self._channels_first else sample))

    @property
    def ndim(self) -> int:
        """As of an array."""
        return 4

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take once they are decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def with_channels_first(self) -> "Pictures":
        """The same pictures as ``[N, C, H, W]``."""
        return Pictures(self._shelf, self._framing, self._found, self.damage, cache=self._cache, channels_first=True)

    def __getitem__(self, chosen: IndexArray) -> Array:
        """Decode some pictures; damaged ones are black."""
        return self.read(chosen)[0]

    def read(self, chosen: IndexArray, boxes: FloatArray | None = None) -> tuple[Array, BoolArray]:
        """Decode some pictures.

        Args:
            chosen: their numbers, ``[n]``.
            boxes: numbers that a random part of each is drawn of, ``[n, *BOX_DRAWS]``; None: their middle.

        Returns:
            Their pixels, black where damaged, and which of them are not damaged, bool ``[n]``.

        Raises:
            DataError: too many of all are damaged.
        """
        height, width = self._framing.size or _first_size(self._found.sizes)
        pixels = np.zeros((len(chosen), height, width, self._framing.channels), np.uint8)

        def fill(place: int) -> str:
            number = int(chosen[place])
            try:
                pixels[place] = self._pixels(number, None if boxes is None else boxes[place])
            except (DamagedError, OSError) as error:
                return str(error)
            return ""

        whole = np.ones(len(chosen), np.bool_)
        for place, failure in enumerate(_in_threads(fill, len(chosen))):
            if failure:
                number = int(chosen[place])
                self.damage.add(number, self._shelf.names[number], failure)
                whole[place] = False
        return (np.moveaxis(pixels, 3, 1) if self._channels_first else pixels), whole

    def _pixels(self, number: int, box: FloatArray | None) -> Array:
        """One picture, from the cache where it is there."""
        name = self._shelf.names[number]
        if self._cache is not None:
            return self._cache.pixels(number, lambda: self._shelf.read(number), name, box)
        return decode(self._shelf.read(number), self._framing, name=name, box=box)


#: Samples by their number: an array, or pictures that are decoded when they are asked for.
Column = Array | Pictures
