"""What a source of pictures holds before any is decoded: where they lie, and the classes they are of."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.shelves import Shelf

Array = NDArray[Any]
#: What a source may say of a picture: the name of a class, a number, or several numbers; None where it says nothing.
Label = str | int | float | Sequence[Any] | Array | None

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: Names that are shown.
_SHOWN: Final = 12


@dataclass(frozen=True)
class Listing:
    """Pictures, encoded as they came.

    Attributes:
        shelf: where they lie.
        labels: of each its number, or that of its class, int64 ``[N]``, or its numbers ``[N, ...]``, float64 where
            they have fractions; None without labels.
        classes: names of the classes in the order of their numbers; None where numbers were given.
        notes: sentences on what was done.
    """

    shelf: Shelf
    labels: Array | None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class Labels:
    """Labels of pictures, one after the other: numbers, or names of classes, which are numbered in the end.

    Args:
        source: what messages call the data.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._numbers = array("q")
        self._names: dict[str, int] = {}
        self._rows: list[Array] = []
        self._missing = 0

    def append(self, label: Label) -> None:
        """Add the label of the next picture: a name, which may be that of a number, a number, or several.

        Nothing, as an empty cell of a table or what it is read as, is no label.

        Raises:
            DataError: the numbers of a picture are not as many as those of others, or are no numbers.
        """
        if label is None or (isinstance(label, str) and not label) or (isinstance(label, float) and math.isnan(label)):
            self._missing += 1
            self._numbers.append(-1)
        elif isinstance(label, (str, int, float)):
            text = str(int(label)) if isinstance(label, bool) else str(label)
            self._numbers.append(self._names.setdefault(text, len(self._names)))
        else:
            self._append_row(np.asarray(label))

    def _append_row(self, row: Array) -> None:
        if row.dtype.kind not in "biuf" or (self._rows and row.shape != self._rows[0].shape):
            raise DataError(
                f"{self._source}, label {len(self._numbers)}",
                expected=f"numbers of shape {list(self._rows[0].shape)}, as before" if self._rows else "numbers",
                found=f"numbers of shape {list(row.shape)}" if row.dtype.kind in "biuf" else f"dtype {row.dtype}",
                way_out="give every image as many numbers",
            )
        self._rows.append(row)
        self._numbers.append(-1)

    def finished(self) -> tuple[Array | None, tuple[str, ...] | None, tuple[str, ...]]:
        """Return the labels, the names of their classes, and sentences on them.

        Raises:
            DataError: some pictures have no label.
        """
        count = len(self._numbers)
        if self._missing == count:
            return None, None, ()
        if self._missing or (self._rows and self._names):
            raise DataError(
                self._source,
                expected="a label for every image, or for none",
                found=f"{self._missing:,} of {count:,} without one" if self._missing else "one number, and several",
                way_out="give the missing labels" if self._missing else "give every image as many numbers",
            )
        if self._rows:
            return np.stack(self._rows), None, ()
        names, found = list(self._names), np.array(self._numbers, np.int64)
        numeric = [name for name in names if _NUMBER.fullmatch(name)]
        if len(numeric) == len(names):
            return _values(names)[found], None, ()
        ordered, notes = in_order(sorted(names))
        if numeric:
            other = next(name for name in names if name not in numeric)
            notes += [f"Labels were taken for names of classes, since {other!r} is no number: {_shown(ordered)}."]
        places = {name: place for place, name in enumerate(ordered)}
        return np.array([places[name] for name in names], np.int64)[found], tuple(ordered), tuple(notes)


def _values(names: Sequence[str]) -> Array:
    """What the names of numbers are: int64 where all are whole, however they are written, else float64."""
    try:
        return np.array([int(name) for name in names], np.int64)
    except (ValueError, OverflowError):
        numbers = np.array([float(name) for name in names])
        whole = (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)
        return numbers.astype(np.int64) if whole.all() else numbers


def in_order(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Class names in the order of their numbers, and a sentence where that is not the alphabetical one.

    Args:
        names: in alphabetical order.
    """
    parts = [re.fullmatch(r"(\D*)(\d+)(\D*)", name) for name in names]
    if not names or not all(parts) or len({(part[1], part[3]) for part in parts if part}) > 1:
        return list(names), []
    ordered = sorted(names, key=lambda name: (int("".join(filter(str.isdigit, name))), name))
    if ordered == list(names):
        return ordered, []
    return ordered, [f"Classes were taken in the order of their numbers, not of the alphabet: {_shown(ordered)}."]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ("..." if len(names) > _SHOWN else "")


def left_out(names: Sequence[str], count: int) -> list[str]:
    """A sentence on files that are no pictures by their name; none where there are none.

    Args:
        names: of some of them.
        count: of all of them.
    """
    if not count:
        return []
    shown = ", ".join(names) + (", ..." if count > len(names) else "")
    return [f"{count:,} files are no images by their name, and were left out: {shown}."]
