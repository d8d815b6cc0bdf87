"""What kept units cost, in MACs, parameters or bytes: sums of products of kept lengths."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxadmm.rules.facts import CostTerm
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.units import Units

CostKind = Literal["macs", "params", "size"]


@dataclass(frozen=True)
class FileSize:
    """How many bytes a model takes as it is written.

    Attributes:
        original: bytes of the file that was given, with its external data.
        written: bytes of the file without the units that go, given those that stay: bool ``[units.count]``.
    """

    original: int
    written: Callable[[NDArray[np.bool_]], int]


class Cost:
    """Exact cost of a set of kept units, for one sample.

    A term is ``constant * product of kept lengths``; an axis of ``[blocks, n]`` counts the mean of its blocks.

    Args:
        file: for ``"size"`` what tells how much else than weights is written; without it their bytes alone are counted.
        near: with ``file``, where that is measured: bool ``[unit count]``. None: where it is most, so that no file is
            larger than it costs.
    """

    def __init__(
        self, units: Units, kind: CostKind, *, file: FileSize | None = None, near: NDArray[np.bool_] | None = None
    ) -> None:
        self.kind = kind
        self._constant = 0.0
        self._count = units.count
        self._axes: list[LabelArray] = []
        self._scales: list[float] = []
        self._terms: list[tuple[float, list[int]]] = []
        known: dict[bytes, int] = {}
        for term in _terms(units, kind):
            self._terms.append((term.constant, [self._index(axis, known) for axis in term.axes]))
        # Per axis: the units on it and how many positions each has; unit -1 stands first and stays.
        self._occupancy = [np.unique(axis, return_counts=True) for axis in self._axes]
        self._readers: _Readers | None = None
        self._flat = _Flat(self._occupancy, self._scales, self._terms, self._count)
        if file is not None:
            whole = np.ones(self._count, dtype=np.bool_)
            samples = [whole, *(_part_of(units, share) for share in (0.0, 0.5, 1.0))] if near is None else [near]
            self._constant = max(file.written(keep) - self.total(keep) for keep in samples)

    def _index(self, axis: LabelArray, known: dict[bytes, int]) -> int:
        key = axis.shape[0].to_bytes(8, "little") + axis.tobytes() if axis.ndim > 1 else axis.tobytes()
        if key not in known:
            known[key] = len(self._axes)
            self._axes.append(axis.reshape(-1))
            self._scales.append(1.0 / axis.shape[0] if axis.ndim > 1 else 1.0)
        return known[key]

    def total(self, keep: NDArray[np.bool_]) -> float:
        """Return the cost when the units where ``keep`` is True stay: bool ``[unit count]``."""
        return self._flat.sum_of_products(self._flat.lengths(keep)) + self._constant

    def dense(self) -> float:
        """Return the cost of the whole model."""
        return self.total(np.ones(self._count, dtype=np.bool_))

    def saved(self, start: int, count: int) -> float:
        """Return what goes when the units ``start .. start + count - 1`` do and all others stay.

        Only what these units occupy is looked at, so all groups of a model together take about as long as one total.
        """
        if self._readers is None:
            whole = self._flat.lengths(np.ones(self._count, dtype=np.bool_)).tolist()
            self._readers = _Readers(self._occupancy, self._terms, whole)
        readers = self._readers
        first, behind = np.searchsorted(readers.units, [start, start + count])
        lengths: dict[int, float] = {}
        for index, positions in zip(readers.axes[first:behind], readers.positions[first:behind], strict=True):
            axis = int(index)
            lengths[axis] = lengths.get(axis, readers.lengths[axis]) - float(positions) * self._scales[axis]
        saved = 0.0
        for number in sorted({number for axis in lengths for number in readers.terms_of.get(axis, ())}):
            constant, axes = self._terms[number]
            whole = math.prod([readers.lengths[axis] for axis in axes])
            saved += constant * float(whole - math.prod([lengths.get(axis, readers.lengths[axis]) for axis in axes]))
        return saved

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the cost that each unit adds while the others are as in ``keep``: float64 ``[unit count]``."""
        return self._flat.per_unit(self._flat.slopes(self._flat.lengths(keep)))


def costs_by_name(units: Units, kind: CostKind) -> dict[str, float]:
    """Return the cost of the whole model, for one sample, by the node that computes or the constant that is stored."""
    costs: dict[str, float] = {}
    for term in _terms(units, kind):
        cost = term.constant * math.prod(axis.shape[-1] for axis in term.axes)
        costs[term.name] = costs.get(term.name, 0.0) + cost
    return costs


def _terms(units: Units, kind: CostKind) -> tuple[CostTerm, ...]:
    """Return what is summed up: for bytes the parameters, each times the bytes of its weight's numbers."""
    if kind == "macs":
        return units.mac_terms
    if kind == "params":
        return units.parameter_terms
    dtypes = [units.shapes.dtype(term.name) for term in units.parameter_terms]
    sizes = [4.0 if dtype is None else float(dtype.itemsize) for dtype in dtypes]
    terms = zip(units.parameter_terms, sizes, strict=True)
    return tuple(replace(term, constant=term.constant * size) for term, size in terms)


def _part_of(units: Units, share: float) -> NDArray[np.bool_]:
    """Keep the first units of every group, about a share, at least one unit of each block and never all of them."""
    keep = np.ones(units.count, dtype=np.bool_)
    for group in units.groups:
        for members in group.members:
            keep[members[max(1, min(round(share * members.size), members.size - 1)) :]] = False
    return keep


class _Flat:
    """Axes and terms in flat arrays: what kept units cost is asked for thousands of times in one allocation."""

    def __init__(
        self,
        occupancy: list[tuple[LabelArray, NDArray[np.int64]]],
        scales: list[float],
        terms: list[tuple[float, list[int]]],
        unit_count: int,
    ) -> None:
        sizes = [units.size for units, _ in occupancy]
        self._scales = np.array(scales)
        self._count = unit_count
        self._axes = np.repeat(np.arange(len(sizes)), sizes)  # of each of the units
        units = np.concatenate([np.empty(0, np.int64), *(units for units, _ in occupancy)])
        self._units = np.where(units < 0, unit_count, units)  # the last place stands for what always stays
        self._positions = np.concatenate([np.empty(0), *(counts for _, counts in occupancy)])
        self._constants = np.array([constant for constant, _ in terms])
        width = max((len(axes) for _, axes in terms), default=0)
        one = len(sizes)  # behind the lengths stands a 1, so that all terms have as many factors
        self._factors = np.array([[*axes, *[one] * (width - len(axes))] for _, axes in terms], np.int64)
        self._factors = self._factors.reshape(len(terms), width)

    def lengths(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how long each axis is: float64 ``[axes]``."""
        kept = self._positions * np.append(keep, True)[self._units]
        found: NDArray[np.float64] = np.bincount(self._axes, kept, minlength=self._scales.size) * self._scales
        return found

    def sum_of_products(self, lengths: NDArray[np.float64]) -> float:
        """Return what all terms come to."""
        return float((self._constants * np.append(lengths, 1.0)[self._factors].prod(axis=1)).sum())

    def slopes(self, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the terms grow by for each position more of an axis: float64 ``[axes]``."""
        factors = np.append(lengths, 1.0)[self._factors]
        found = np.zeros(lengths.size + 1)
        for place in range(factors.shape[1]):
            others = np.delete(factors, place, axis=1).prod(axis=1)
            found += np.bincount(self._factors[:, place], self._constants * others, minlength=found.size)
        return found[:-1]

    def per_unit(self, slopes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each unit adds: float64 ``[unit count]``."""
        added = (slopes * self._scales)[self._axes] * self._positions
        found = np.bincount(self._units, added, minlength=self._count + 1)[: self._count]
        return found.astype(np.float64, copy=False)


class _Readers:
    """By unit, the axes on which it stands; by axis, the terms in which it counts."""

    def __init__(
        self,
        occupancy: list[tuple[LabelArray, NDArray[np.int64]]],
        terms: list[tuple[float, list[int]]],
        lengths: list[float],
    ) -> None:
        self.lengths = lengths
        units = [found for found, _ in occupancy] or [np.empty(0, dtype=np.int64)]
        axes = np.repeat(np.arange(len(units)), [found.size for found in units])
        positions = np.concatenate([counts for _, counts in occupancy] or [np.empty(0, dtype=np.int64)])
        order = np.argsort(np.concatenate(units), kind="stable")
        self.units = np.concatenate(units)[order]
        self.axes = axes[order]
        self.positions = positions[order]
        self.terms_of: dict[int, list[int]] = {}
        for number, (_, indices) in enumerate(terms):
            for index in indices:
                self.terms_of.setdefault(index, []).append(number)
