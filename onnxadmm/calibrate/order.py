"""In which order the units of a group go: the one whose loss the layers that read it make up for best goes first.

Optimal brain surgery by blocks (Hassibi and Stork, 1993; Frantar and Alistarh, "Optimal brain compression", 2022): the
error of the outputs when rows j of a weight W are forced to zero and the others take over as well as they can is
tr(W_j^T [(H^-1)_jj]^-1 W_j), with H the second moments of what the layer reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
UnitArray = NDArray[np.int64]
OnStop = Callable[[int], None]


@dataclass
class Reading:
    """One product that reads units of a group.

    Attributes:
        weight: float64 ``[width, outputs]``; rows that have gone are zero.
        inverse: of the second moments of its rows, float64 ``[width, width]``.
        units: unit of each row, counted from the group's first; -1 where it is of no unit of the group. int64
            ``[width]``.
        scale: what its error counts for, in units of its own outputs.
    """

    weight: DoubleArray
    inverse: DoubleArray
    units: UnitArray
    scale: float
    _rows: list[tuple[UnitArray, UnitArray]] = field(init=False)

    def __post_init__(self) -> None:
        # Units that have equally many rows are looked at together.
        order = np.argsort(self.units, kind="stable")
        order = order[self.units[order] >= 0]
        found, starts, counts = np.unique(self.units[order], return_index=True, return_counts=True)
        self._rows = [
            (found[counts == size], np.stack([order[start : start + size] for start in starts[counts == size]]))
            for size in np.unique(counts)
        ]

    def losses(self, count: int) -> DoubleArray:
        """Error of the outputs when each unit goes by itself, float64 ``[count]``."""
        losses = np.zeros(count)
        for units, rows in self._rows:
            alive = np.any(self.inverse[rows, rows] > 0, axis=1)
            units, rows = units[alive], rows[alive]
            if not units.size:
                continue
            inner = self.inverse[rows[:, :, None], rows[:, None, :]]
            weights = self.weight[rows]
            losses[units] += np.einsum("nbo,nbo->n", weights, np.linalg.solve(inner, weights))
        return self.scale * losses

    def remove(self, gone: UnitArray) -> None:
        """Take the rows of units out, and let those that are left take over."""
        rows = np.flatnonzero(np.isin(self.units, gone) & (np.diag(self.inverse) > 0))
        if not rows.size:
            return
        step = np.linalg.solve(self.inverse[np.ix_(rows, rows)], self.inverse[rows]).T
        self.weight -= step @ self.weight[rows]
        self.inverse -= step @ self.inverse[rows]
        self.weight[rows] = 0.0
        self.inverse[rows] = 0.0
        self.inverse[:, rows] = 0.0


def reading_of(
    second: DoubleArray, weight: DoubleArray, units: UnitArray, *, ridge: float, absent: NDArray[np.bool_] | None = None
) -> Reading:
    """Return what ``removal_order`` needs of a product.

    Args:
        second: second moments of its rows, float64 ``[width, width]``, about their means where it has an offset.
        weight: float64 ``[width, outputs]``.
        units: as in ``Reading``.
        ridge: added to the diagonal, in its mean.
        absent: rows that have gone before, bool ``[width]``.
    """
    energy = float(np.einsum("wo,wo->", weight, second @ weight))
    mean = float(np.trace(second)) / max(1, len(second)) or 1.0
    inverse = np.linalg.inv(second + ridge * mean * np.eye(len(second)))
    return Reading(np.array(weight), (inverse + inverse.T) / 2, units, 1.0 / energy if energy > 0 else 0.0)


def removal_order(
    readings: Sequence[Reading], blocks: UnitArray, *, fewest: int, share: float, stops: Sequence[int], on_stop: OnStop
) -> UnitArray:
    """Return the steps in which units go, best first: int64 ``[steps, blocks]``, counted from the group's first unit.

    Every step takes one unit of each block. What is left below ``fewest`` stays in the order of the last losses.

    Args:
        readings: the products that read them; they are changed.
        blocks: block of each unit, int64 ``[count]``.
        fewest: steps that are left in the end.
        share: of the steps that are left, which may go at a time; the smaller, the more often losses are computed.
        stops: numbers of steps left at which ``on_stop`` is called.
        on_stop: given a number of steps left; the readings then hold the weights that have taken over.
    """
    count, number = len(blocks), int(blocks.max()) + 1
    members = [np.flatnonzero(blocks == block) for block in range(number)]
    size = members[0].size
    left = np.ones(count, np.bool_)
    steps: list[UnitArray] = []
    remaining = size
    pending = sorted({stop for stop in stops if fewest <= stop < size}, reverse=True)
    while True:
        losses = np.zeros(count)
        for reading in readings:
            losses += reading.losses(count)
        losses[~left] = np.inf
        ranked = np.stack([each[np.argsort(losses[each], kind="stable")] for each in members], axis=1)
        if remaining <= fewest:
            steps.extend(ranked[:remaining])
            break
        chunk = max(1, min(int(remaining * share), remaining - fewest))
        if pending:
            chunk = min(chunk, remaining - pending[0])
        going = ranked[:chunk]
        for reading in readings:
            reading.remove(going.reshape(-1))
        left[going.reshape(-1)] = False
        steps.extend(going)
        remaining -= chunk
        if pending and remaining == pending[0]:
            on_stop(pending.pop(0))
    return np.stack(steps)
