"""Which units compete: those that occupy the same axes of the same weights as writers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.rules.facts import Facts
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.origins import Origin

AxisName = tuple[str, int]


@dataclass(frozen=True)
class Occupancy:
    """The axes that each unit, named by its root label, occupies.

    Attributes:
        roots: root labels of all units that occupy an axis of a weight, ascending.
        keys: one number per root; equal keys mean equal sets of axes and equal fate (locked or not).
        names: the axes of weights that write units, in the order of the graph.
    """

    roots: LabelArray
    keys: NDArray[np.uint64]
    names: tuple[AxisName, ...]
    _unwritten: tuple[tuple[AxisName, LabelArray], ...]  # reading axes of free units that no other axis writes
    _occupants: LabelArray  # the roots of every writing axis behind each other, ascending
    _occupied: LabelArray  # of which of ``names`` each of them is

    def classes(self) -> list[LabelArray]:
        """Return the roots of each class, ascending; classes ordered by their smallest root."""
        order = np.lexsort((self.roots, self.keys))
        cuts = np.flatnonzero(np.diff(self.keys[order])) + 1
        found = [part for part in np.split(self.roots[order], cuts) if part.size]
        return sorted(found, key=lambda part: int(part[0]))

    def axes_of(self, members: LabelArray) -> list[AxisName]:
        """Return the axes that a class occupies, in the order of the graph: those that write it.

        Where one axis of a tied weight both writes and reads, and no other writes, it is the axis that reads.
        """
        first, behind = np.searchsorted(self._occupants, [members[0], members[0] + 1])
        if first == behind:
            return [name for name, roots in self._unwritten if np.isin(roots, members).all()]
        return [self.names[index] for index in self._occupied[first:behind]]


def find_occupancy(facts: Facts, origins: Sequence[Origin]) -> Occupancy:
    """Find out which axes every unit occupies."""
    reading = {(origin.tensor, origin.axis) for origin in origins}
    names: list[AxisName] = []
    members: list[LabelArray] = []
    readers: list[tuple[AxisName, LabelArray]] = []
    whole = _whole_behind_others(facts)
    for tensor, axes in facts.axes.items():
        if tensor not in facts.constants:
            continue
        for index, axis in enumerate(axes):
            if axis is None or (tensor, index) in facts.whole:
                continue
            occupied = np.unique(facts.labels.roots(axis))
            if np.isin(occupied, whole).all():
                continue
            if (tensor, index) in reading:
                readers.append(((tensor, index), occupied))
            else:
                names.append((tensor, index))
                members.append(occupied)
    selections = [np.unique(facts.labels.roots(selection)) for selection in facts.selections]
    everything = [*members, *(occupied for _, occupied in readers)]
    roots = np.unique(np.concatenate(everything)) if everything else np.empty(0, dtype=np.int64)
    keys = np.zeros(roots.size, dtype=np.uint64)
    written = np.zeros(roots.size, dtype=np.bool_)
    generator = np.random.default_rng(20220501)  # any fixed numbers will do: sums of them tell sets apart
    for occupied in members:
        _add(keys, roots, occupied, generator)
        written[np.searchsorted(roots, occupied)] = True
    wholly: list[tuple[AxisName, LabelArray]] = []
    for name, occupied in readers:
        # Units that no other axis writes (padding, tied weights) are told apart by who reads them.
        unwritten = occupied[~written[np.searchsorted(roots, occupied)]]
        _add(keys, roots, unwritten, generator)
        if unwritten.size == occupied.size and not facts.labels.locked(occupied).any():
            wholly.append((name, occupied))
    for occupied in selections:
        _add(keys, roots, occupied[np.isin(occupied, roots, assume_unique=True)], generator)
    locked = facts.labels.locked(roots) if roots.size else np.zeros(0, dtype=np.bool_)
    _add(keys, roots, roots[locked], generator)
    occupants = np.concatenate(members) if members else np.empty(0, dtype=np.int64)
    occupied_axes = np.repeat(np.arange(len(members)), [occupied.size for occupied in members])
    order = np.argsort(occupants, kind="stable")
    return Occupancy(roots, keys, tuple(names), tuple(wholly), occupants[order], occupied_axes[order])


def _whole_behind_others(facts: Facts) -> LabelArray:
    """Return the roots on kernel axes of weights that are computed, from a quantised constant for example."""
    found = [
        facts.labels.roots(axis)
        for tensor, index in facts.whole
        if tensor not in facts.constants and (axis := facts.axes[tensor][index]) is not None
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _add(keys: NDArray[np.uint64], roots: LabelArray, occupied: LabelArray, generator: np.random.Generator) -> None:
    """Add one random number to the keys of the roots of an axis."""
    number = generator.integers(0, np.iinfo(np.uint64).max, dtype=np.uint64, endpoint=True)
    keys[np.searchsorted(roots, occupied)] += number
