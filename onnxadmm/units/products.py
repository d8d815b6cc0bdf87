"""Sums of products of kept lengths, in flat arrays: what kept units cost is asked for thousands of times."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from onnxadmm.rules.facts import CostTerm
from onnxadmm.rules.labels import LabelArray


class Products:
    """Terms of ``constant * product of kept lengths``; an axis of ``[blocks, n]`` counts the mean of its blocks.

    Args:
        terms: the terms.
        unit_count: how many units there are.
        step: lengths count as the next multiple of it, as a processor fills vectors of so many numbers; an axis shorter
            than that counts whole while anything of it is left.

    Attributes:
        axes: for each axis, its units (-1, which stays, stands first) and how many positions each has.
        scales: what a position of each axis counts, float64 ``[axes]``.
        terms: constant and numbers of the axes of each term.
    """

    def __init__(self, terms: Iterable[CostTerm], unit_count: int, *, step: int = 1) -> None:
        self.terms: list[tuple[float, list[int]]] = []
        self.axes: list[tuple[LabelArray, NDArray[np.int64]]] = []
        scales: list[float] = []
        known: dict[bytes, int] = {}
        for term in terms:
            self.terms.append((term.constant, [self._index(axis, known, scales) for axis in term.axes]))
        self.scales = np.array(scales)
        self._count = unit_count
        sizes = [units.size for units, _ in self.axes]
        self._owners = np.repeat(np.arange(len(sizes)), sizes)  # the axis of each of the units
        units = np.concatenate([np.empty(0, np.int64), *(units for units, _ in self.axes)])
        self._units = np.where(units < 0, unit_count, units)  # the last place stands for what always stays
        self._positions = np.concatenate([np.empty(0), *(counts for _, counts in self.axes)])
        whole = np.bincount(self._owners, self._positions, minlength=self.scales.size) * self.scales
        self._steps = None if step == 1 else np.minimum(step, whole)
        self._constants = np.array([constant for constant, _ in self.terms])
        width = max((len(axes) for _, axes in self.terms), default=0)
        one = len(sizes)  # behind the lengths stands a 1, so that all terms have as many factors
        self._factors = np.array([[*axes, *[one] * (width - len(axes))] for _, axes in self.terms], np.int64)
        self._factors = self._factors.reshape(len(self.terms), width)

    def _index(self, axis: LabelArray, known: dict[bytes, int], scales: list[float]) -> int:
        key = axis.shape[0].to_bytes(8, "little") + axis.tobytes() if axis.ndim > 1 else axis.tobytes()
        if key not in known:
            known[key] = len(self.axes)
            self.axes.append(np.unique(axis.reshape(-1), return_counts=True))
            scales.append(1.0 / axis.shape[0] if axis.ndim > 1 else 1.0)
        return known[key]

    def lengths(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how long each axis is when the units of ``keep`` stay, bool ``[unit count]``: float64 ``[axes]``."""
        kept = self._positions * np.append(keep, True)[self._units]
        found: NDArray[np.float64] = np.bincount(self._owners, kept, minlength=self.scales.size) * self.scales
        # Lengths are sums of counts and their means: what lies a rounding above a multiple is that multiple.
        return found if self._steps is None else np.ceil(found / self._steps - 1e-9) * self._steps

    def values(self, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each term at lengths of the axes: float64 ``[terms]``."""
        values: NDArray[np.float64] = self._constants * np.append(lengths, 1.0)[self._factors].prod(axis=1)
        return values

    def total(self, keep: NDArray[np.bool_]) -> float:
        """Return what all terms come to."""
        return float(self.values(self.lengths(keep)).sum())

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what each unit adds while the others are as in ``keep``: float64 ``[unit count]``.

        With a step this is the slope over several of them.
        """
        added = (self._slopes(self.lengths(keep)) * self.scales)[self._owners] * self._positions
        found = np.bincount(self._units, added, minlength=self._count + 1)[: self._count]
        return found.astype(np.float64, copy=False)

    def _slopes(self, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the terms grow by for each position more of an axis: float64 ``[axes]``."""
        factors = np.append(lengths, 1.0)[self._factors]
        found = np.zeros(lengths.size + 1)
        for place in range(factors.shape[1]):
            others = np.delete(factors, place, axis=1).prod(axis=1)
            found += np.bincount(self._factors[:, place], self._constants * others, minlength=found.size)
        return found[:-1]
