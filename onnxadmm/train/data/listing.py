"""What a source of pictures holds before any is decoded: where they lie, and the classes they are of."""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.train.data.shelves import Shelf

IndexArray = NDArray[np.int64]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Listing:
    """Pictures, encoded as they came.

    Attributes:
        shelf: where they lie.
        labels: number of the class of each, int64 ``[N]``; None without labels.
        classes: names of the classes in the order of their numbers; None where numbers were given.
        notes: sentences on what was done.
    """

    shelf: Shelf
    labels: IndexArray | None
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
        self._missing = 0

    def append(self, label: str | int | None) -> None:
        """Add the label of the next picture; a name may be that of a number."""
        if label is None:
            self._missing += 1
        self._numbers.append(-1 if label is None else self._names.setdefault(str(label), len(self._names)))

    def finished(self) -> tuple[IndexArray | None, tuple[str, ...] | None, tuple[str, ...]]:
        """Return the labels, the names of their classes, and sentences on them.

        Raises:
            DataError: some pictures have no label.
        """
        count = len(self._numbers)
        if self._missing == count:
            return None, None, ()
        if self._missing:
            raise DataError(
                self._source,
                expected="a label for every image, or for none",
                found=f"{self._missing:,} of {count:,} without one",
                way_out="give the missing labels",
            )
        names = list(self._names)
        found = np.array(self._numbers, np.int64)
        if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
            return np.array([int(name) for name in names], np.int64)[found], None, ()
        ordered, notes = in_order(sorted(names))
        places = {name: place for place, name in enumerate(ordered)}
        return np.array([places[name] for name in names], np.int64)[found], tuple(ordered), tuple(notes)


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
    shown = ", ".join(ordered[:12]) + ("..." if len(ordered) > 12 else "")
    return ordered, [f"Classes were taken in the order of their numbers, not of the alphabet: {shown}."]


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
