"""Choices of levels made to fit a budget, and improved, on the exact cost."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.bounds import Bounds
from onnxadmm.admm.levels import DoubleArray, IndexArray, Levels

#: Levels of a group that one exchange may go up or down.
_REACH = 16
#: Levels of the other group that it is exchanged for.
_STRIDES = (1, 2, 4, 8)
#: Exchanges that are tried before a choice stands. Many groups need no far ones: their single levels are fine enough.
_MOST_MOVES = 128
#: An exchange that lowers the loss by a smaller share of what it moves is rounding.
_LEAST_GAIN = 1e-9


class Exchange:
    """Moves between choices (see ``Levels``).

    Whether a choice fits is asked of the exact cost alone. Marginal costs, which are exact for one group as long as
    no term has it twice, say which moves are worth asking about.
    """

    def __init__(self, levels: Levels, budget: float) -> None:
        self._levels = levels
        self._budget = budget
        cost = levels.problem.cost
        # Marginal costs of several bounds are a mean over them, and say nothing for certain about the fullest; those
        # of a measured cost are slopes over steps.
        bounds = cost.bounds if isinstance(cost, Bounds) else ()
        self._certain = len(bounds) <= 1 and all(bound.measured is None for bound in bounds)

    def fitted(self, chosen: IndexArray) -> IndexArray:
        """Return the choice with levels taken down until it fits, the least loss per cost first, then up."""
        while (over := self._cost(chosen) - self._budget) > 0:
            saved, lost = self._moves(chosen, up=False, reach=1)
            useful = np.minimum(saved[:, 0], over)  # beyond what has to go nothing is won
            worth = np.where(useful > 0, lost[:, 0] / np.where(useful > 0, useful, 1.0), np.inf)
            best = int(np.lexsort((worth, chosen == 0))[0])
            chosen = _moved(chosen, best, -1)
        return self.filled(chosen)

    def filled(self, chosen: IndexArray) -> IndexArray:
        """Return the choice with levels taken up, most loss saved per cost first, until none fits."""
        room = self._budget - self._cost(chosen)
        closed = chosen >= self._levels.top
        while not closed.all():
            paid, won = (moves[:, 0] for moves in self._moves(chosen, up=True, reach=1))
            if self._certain:
                closed |= paid > room
            worth = np.where(paid > 0, won / np.where(paid > 0, paid, 1.0), np.inf)
            best = int(np.lexsort((paid, -worth, closed))[0])  # among equals the cheapest
            if closed[best]:
                break
            higher = _moved(chosen, best, 1)
            left = self._budget - self._cost(higher)
            if left < 0:
                closed[best] = True  # costs only grow as units come back, so it will not fit later either
            else:
                chosen, room = higher, left
                closed |= chosen >= self._levels.top
        return chosen

    def improved(self, chosen: IndexArray) -> IndexArray:
        """Return the choice after all exchanges, of levels of a group for levels of another, that lower the loss."""
        strides = _STRIDES[: max(1, _MOST_MOVES // max(1, 2 * chosen.size))]
        moves = [(group, way * far) for far in strides for group in range(chosen.size) for way in (-1, 1)]
        place, idle = 0, 0
        while idle < len(moves):
            better = self._exchanged(chosen, *moves[place])
            place, idle = (place + 1) % len(moves), idle + 1
            if better is not None:
                chosen, idle = self.filled(better), 0
        return chosen

    def _exchanged(self, chosen: IndexArray, group: int, way: int) -> IndexArray | None:
        """Return a better choice with ``group`` so many levels up or down and another the other way, None without one.

        The other group goes up as far as there is room, or down as far as there must be.
        """
        if not 0 <= chosen[group] + way <= self._levels.top[group]:
            return None
        moved = _moved(chosen, group, way)
        losses = self._levels.losses[group]
        gained = float(losses[chosen[group]] - losses[moved[group]])
        room = self._budget - self._cost(moved)
        up = way < 0
        costs, changes = self._moves(moved, up=up, reach=_REACH)
        steps = np.count_nonzero(costs <= room, axis=1) if up else np.count_nonzero(costs < -room, axis=1) + 1
        steps[group] = 0
        others = np.flatnonzero((steps > 0) & (steps <= _REACH))
        others = others[np.isfinite(costs[others, steps[others] - 1])]
        change = changes[others, steps[others] - 1]
        gains = gained + change if up else gained - change
        for place in np.argsort(-gains, kind="stable"):
            if gains[place] <= _LEAST_GAIN * abs(gained):
                return None
            better = _moved(moved, int(others[place]), int(steps[others[place]]) * (1 if up else -1))
            if self._cost(better) <= self._budget:
                return better
        return None

    def _moves(self, chosen: IndexArray, *, up: bool, reach: int) -> tuple[DoubleArray, DoubleArray]:
        marginal = self._levels.problem.cost.marginal(self._levels.keep(chosen))
        return self._levels.moves(chosen, marginal, up=up, reach=reach)

    def _cost(self, chosen: IndexArray) -> float:
        return self._levels.problem.cost.total(self._levels.keep(chosen))


def _moved(chosen: NDArray[np.int64], group: int, levels: int) -> IndexArray:
    moved = chosen.copy()
    moved[group] += levels
    return moved
