"""What kept units cost, in MACs, parameters or bytes: sums of products of kept lengths."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxadmm.rules.facts import CostTerm
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.products import Products
from onnxadmm.units.units import Units

#: What is counted.
CountKind = Literal["macs", "params", "size"]
#: What a budget may be of: what is counted, and what is measured.
CostKind = Literal[CountKind, "latency"]


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

    Args:
        file: for ``"size"`` what tells how much else than weights is written; without it their bytes alone are counted.
        near: with ``file``, where that is measured: bool ``[unit count]``. None: where it is most, so that no file is
            larger than it costs.
    """

    def __init__(
        self, units: Units, kind: CountKind, *, file: FileSize | None = None, near: NDArray[np.bool_] | None = None
    ) -> None:
        self.kind = kind
        self._constant = 0.0
        self._count = units.count
        self._followers = units.followers
        self._products = Products(_terms(units, kind), units.count + units.followers.count)
        self._readers: _Readers | None = None
        if file is not None:
            whole = np.ones(self._count, dtype=np.bool_)
            samples = [whole, *(_part_of(units, share) for share in (0.0, 0.5, 1.0))] if near is None else [near]
            self._constant = max(file.written(keep) - self.total(keep) for keep in samples)

    def total(self, keep: NDArray[np.bool_]) -> float:
        """Return the cost when the units where ``keep`` is True stay: bool ``[unit count]``."""
        return self._products.total(self._followers.with_them(keep)) + self._constant

    def dense(self) -> float:
        """Return the cost of the whole model."""
        return self.total(np.ones(self._count, dtype=np.bool_))

    def saved(self, start: int, count: int) -> float:
        """Return what goes when the units ``start .. start + count - 1`` do and all others stay.

        Only what these units occupy is looked at, so all groups of a model together take about as long as one total.
        """
        if self._readers is None:
            whole = self._products.lengths(np.ones(self._count + self._followers.count, dtype=np.bool_)).tolist()
            self._readers = _Readers(self._products.axes, self._products.terms, whole)
        readers = self._readers
        places = _between(readers.units, start, start + count)
        if self._followers.groups:
            keep = np.ones(self._count, dtype=np.bool_)
            keep[start : start + count] = False
            gone = self._count + np.flatnonzero(~self._followers.stay(keep))
            places = np.concatenate([places, *(_between(readers.units, unit, unit + 1) for unit in gone.tolist())])
        lengths: dict[int, float] = {}
        for index, positions in zip(readers.axes[places], readers.positions[places], strict=True):
            axis = int(index)
            lengths[axis] = lengths.get(axis, readers.lengths[axis]) - float(positions) * self._products.scales[axis]
        saved = 0.0
        for number in sorted({number for axis in lengths for number in readers.terms_of.get(axis, ())}):
            constant, axes = self._products.terms[number]
            whole = math.prod([readers.lengths[axis] for axis in axes])
            saved += constant * float(whole - math.prod([lengths.get(axis, readers.lengths[axis]) for axis in axes]))
        return saved

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the cost that each unit adds while the others are as in ``keep``: float64 ``[unit count]``."""
        return self._followers.marginal(keep, self._products.marginal(self._followers.with_them(keep)))


def costs_by_name(units: Units, kind: CountKind) -> dict[str, float]:
    """Return the cost of the whole model, for one sample, by the node that computes or the constant that is stored."""
    costs: dict[str, float] = {}
    for term in _terms(units, kind):
        cost = term.constant * math.prod(axis.shape[-1] for axis in term.axes)
        costs[term.name] = costs.get(term.name, 0.0) + cost
    return costs


def _terms(units: Units, kind: CountKind) -> tuple[CostTerm, ...]:
    """Return what is summed up: for bytes parameters and indices, each times the bytes of the numbers it is of."""
    if kind == "macs":
        return units.mac_terms
    if kind == "params":
        return units.parameter_terms
    stored = (*units.parameter_terms, *units.index_terms)
    dtypes = [units.shapes.dtype(term.name) for term in stored]
    sizes = [4.0 if dtype is None else float(dtype.itemsize) for dtype in dtypes]
    return tuple(replace(term, constant=term.constant * size) for term, size in zip(stored, sizes, strict=True))


def _between(units: LabelArray, start: int, stop: int) -> LabelArray:
    """Return the places of ascending units that hold those from ``start`` on, before ``stop``."""
    return np.arange(*np.searchsorted(units, [start, stop]))


def _part_of(units: Units, share: float) -> NDArray[np.bool_]:
    """Keep the first units of every group, about a share, at least one unit of each block and never all of them."""
    keep = np.ones(units.count, dtype=np.bool_)
    for group in units.groups:
        for members in group.members:
            keep[members[max(1, min(round(share * members.size), members.size - 1)) :]] = False
    return keep


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
