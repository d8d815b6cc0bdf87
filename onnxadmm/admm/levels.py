"""The levels of all groups side by side in flat arrays, so that looking at all of them costs a few array operations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.ladder import Ladder
from onnxadmm.admm.problem import KeepArray, Problem

DoubleArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


class Levels:
    """What each group may keep and loses by it. A *choice* is the index of a level of each group, int64 ``[groups]``.

    Args:
        losses: of every group, at ``levels`` of its ladder: float64 ``[levels]``.
    """

    def __init__(self, problem: Problem, ladders: Sequence[Ladder], losses: Sequence[DoubleArray]) -> None:
        self.problem = problem
        self.losses = losses
        sizes = [ladder.levels.size for ladder in ladders]
        #: The choice that keeps everything.
        self.top = np.array(sizes, dtype=np.int64) - 1
        self._first = np.cumsum([0, *sizes])[:-1]
        self._losses = np.concatenate([np.zeros(0), *losses])
        units, bounds, needed, owners, before = [], [], [], [], 0
        for group, ladder in enumerate(ladders):
            count, width = ladder.steps.shape
            units.append(ladder.steps[::-1].reshape(-1))  # the last to go stands first
            bounds.append(before + ladder.levels * width)
            needed.append(np.repeat(np.searchsorted(ladder.levels, np.arange(1, count + 1)), width))
            owners.append(np.full(count * width, group, dtype=np.int64))
            before += count * width
        empty = np.zeros(0, dtype=np.int64)
        self._units = np.concatenate([empty, *units])
        self._bounds = np.concatenate([empty, *bounds])  # of each level, the end of its units among ``_units``
        self._needed = np.concatenate([empty, *needed])  # of each unit, the first level that keeps it
        self._owners = np.concatenate([empty, *owners])

    def keep(self, chosen: IndexArray) -> KeepArray:
        """Return which units stay: bool ``[unit_count]``."""
        keep = np.ones(self.problem.unit_count, dtype=np.bool_)
        keep[self._units] = self._needed <= chosen[self._owners]
        return keep

    def loss(self, chosen: IndexArray) -> float:
        """Return the sum of the losses of the groups."""
        return float(self._losses[self._first + chosen].sum())

    def priced(self, marginal: DoubleArray) -> list[DoubleArray]:
        """Return what each level of each group costs where a unit costs ``marginal``, up to a constant of the group.

        Returns:
            float64 ``[levels]`` for each group.
        """
        return np.split(self._sums(marginal), self._first[1:])

    def moves(
        self, chosen: IndexArray, marginal: DoubleArray, *, up: bool, reach: int
    ) -> tuple[DoubleArray, DoubleArray]:
        """Return what going up (down) by 1, 2, ... levels costs (saves), and how much loss it saves (costs).

        Returns:
            Two arrays float64 ``[groups, reach]``; where a group has no such level the cost is infinite.
        """
        levels = chosen[:, None] + np.arange(1, reach + 1) * (1 if up else -1)
        there = (levels >= 0) & (levels <= self.top[:, None])
        flat = self._first[:, None] + np.clip(levels, 0, self.top[:, None])
        here = (self._first + chosen)[:, None]
        sums = self._sums(marginal)
        sign = 1.0 if up else -1.0
        costs = np.where(there, sign * (sums[flat] - sums[here]), np.inf)
        return costs, sign * (self._losses[here] - self._losses[flat])

    def _sums(self, marginal: DoubleArray) -> DoubleArray:
        """Sums of marginal costs from the first unit of all to the last of each level; differences count."""
        sums = np.append(0.0, np.cumsum(marginal[self._units]))
        ends: DoubleArray = sums[self._bounds]
        return ends
