"""In which order the units of a group go: the one whose loss the layers that read it make up for best goes first.

Optimal brain surgery by blocks (Hassibi and Stork, "Second order derivatives for network pruning: optimal brain
surgeon", 1992; by blocks as in Kurtic et al., "ZipLM", 2023, equation 3): the error of the outputs when rows j of a
weight W are forced to zero and the others take over as well as they can is tr(W_j^T [(H^-1)_jj]^-1 W_j), with H the
second moments of what the layer reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
UnitArray = NDArray[np.int64]
OnStop = Callable[[int], None]
#: Share of the rows that may have gone before the matrices are made smaller.
_SPARE = 0.1
#: Units go at a time that lose at most so many times what each of them loses by itself, or next to nothing.
_ALONE = 2.0
_NOTHING = 1e-6


class Reading(Protocol):
    """Something that reads units of a group, and loses when they go."""

    def losses(self) -> DoubleArray:
        """Return what is lost when each unit goes by itself, relative to all there is: float64 ``[count]``."""
        ...

    def together(self, gone: UnitArray) -> float:
        """Return what is lost when units go at once, likewise."""
        ...

    def remove(self, gone: UnitArray) -> None:
        """Take units out."""
        ...


@dataclass(frozen=True)
class FixedReading:
    """What reads units and is not known as a matrix: the same score for each unit, whatever else goes.

    Attributes:
        scores: float64 ``[count]``, relative to their sum.
    """

    scores: DoubleArray

    def losses(self) -> DoubleArray:
        """Return the scores."""
        return self.scores

    def together(self, gone: UnitArray) -> float:
        """Return the sum of the scores."""
        return float(self.scores[gone].sum())

    def remove(self, gone: UnitArray) -> None:
        """Nothing takes over."""


@dataclass
class LayerReading:
    """One product that reads units of a group; its other rows take over as units go.

    Attributes:
        units: unit of each row, counted from the group's first; -1 where it is of no unit of the group. int64
            ``[width]``.
        count: units of the group.
        scale: what its error counts for.
    """

    units: UnitArray
    count: int
    scale: float
    # Rows that are still looked at, by number; the weight and the inverse of the second moments are of those alone, so
    # that work falls with the square of what is left. The rows of ``_gone`` wait to be taken out with the next lot.
    _rows: UnitArray
    _gone: NDArray[np.bool_]
    _weight: DoubleArray
    _inverse: DoubleArray
    _alike: list[tuple[UnitArray, UnitArray]] = field(default_factory=list)

    @staticmethod
    def of(second: DoubleArray, weight: DoubleArray, units: UnitArray, *, count: int, ridge: float) -> "LayerReading":
        """Return the reading of a product.

        Args:
            second: second moments of its rows, float64 ``[width, width]``, about their means where it has an offset.
            weight: float64 ``[width, outputs]``.
            units, count: as in the attributes.
            ridge: added to the diagonal, relative to its mean.
        """
        energy = float(np.einsum("wo,wo->", weight, second @ weight))
        strength = ridge * float(np.trace(second)) / max(1, len(second)) or 1.0
        inverse = np.linalg.inv(second + strength * np.eye(len(second)))
        every = np.arange(len(second))
        reading = LayerReading(
            units=units,
            count=count,
            scale=1.0 / energy if energy > 0 else 0.0,
            _rows=every,
            _gone=np.zeros(len(every), np.bool_),
            _weight=np.array(weight),
            _inverse=(inverse + inverse.T) / 2,
        )
        reading._take_stock()
        return reading

    @property
    def weight(self) -> DoubleArray:
        """The weight as it is now, float64 ``[width, outputs]``; rows that have gone are zero."""
        weight = np.zeros((len(self.units), self._weight.shape[1]))
        weight[self._rows] = self._weight
        return weight

    def losses(self) -> DoubleArray:
        """Return the error of the outputs when each unit goes by itself."""
        losses = np.zeros(self.count)
        for units, rows in self._alike:
            here = ~self._gone[rows[:, 0]]
            units, rows = units[here], rows[here]
            weights = self._weight[rows]
            if rows.shape[1] == 1:
                single = np.einsum("nbo,nbo->n", weights, weights)
                losses[units] += single / self._inverse[rows[:, 0], rows[:, 0]]
                continue
            inner = self._inverse[rows[:, :, None], rows[:, None, :]]
            losses[units] += np.einsum("nbo,nbo->n", weights, np.linalg.solve(inner, weights))
        return self.scale * losses

    def together(self, gone: UnitArray) -> float:
        """Return the error of the outputs when units go at once."""
        rows = self._rows_of(gone)
        weights = self._weight[rows]
        return self.scale * float(np.vdot(weights, np.linalg.solve(self._inverse[np.ix_(rows, rows)], weights)))

    def remove(self, gone: UnitArray) -> None:
        """Take the rows of units out, and let those that are left take over."""
        rows = self._rows_of(gone)
        if not rows.size:
            return
        step = np.linalg.solve(self._inverse[np.ix_(rows, rows)], self._inverse[rows]).T
        self._weight -= step @ self._weight[rows]
        self._inverse -= step @ self._inverse[rows]
        self._weight[rows] = 0.0
        self._inverse[rows] = 0.0
        self._inverse[:, rows] = 0.0
        self._gone[rows] = True
        if self._gone.mean() > _SPARE:
            self._take_stock()

    def _rows_of(self, units: UnitArray) -> UnitArray:
        return np.flatnonzero(np.isin(self.units[self._rows], units) & ~self._gone)

    def _take_stock(self) -> None:
        """Take the rows that have gone out of the matrices, and put units with equally many rows side by side."""
        if self._gone.any():
            left = np.flatnonzero(~self._gone)
            self._rows, self._gone = self._rows[left], self._gone[left]
            self._weight, self._inverse = self._weight[left], self._inverse[np.ix_(left, left)]
        units = self.units[self._rows]
        order = np.argsort(units, kind="stable")
        order = order[units[order] >= 0]
        found, starts, counts = np.unique(units[order], return_index=True, return_counts=True)
        self._alike = [
            (found[counts == size], np.stack([order[start : start + size] for start in starts[counts == size]]))
            for size in np.unique(counts)
        ]


def removal_order(
    readings: Sequence[Reading],
    blocks: UnitArray,
    *,
    fewest: int,
    share: float,
    stops: Sequence[int] = (),
    on_stop: OnStop = lambda left: None,
) -> UnitArray:
    """Return the steps in which units go, best first: int64 ``[steps, blocks]``, counted from the group's first unit.

    Every step takes one unit of each block. What is left below ``fewest`` stays in the order of the last losses.

    Args:
        readings: what reads the units; they are changed.
        blocks: block of each unit, int64 ``[count]``, equally many of each.
        fewest: steps that are left in the end.
        share: of the steps that are left, which may go at a time; the smaller, the more often losses are computed.
        stops: numbers of steps left at which ``on_stop`` is called.
        on_stop: given a number of steps left; the readings then hold the weights that have taken over.
    """
    members = np.stack([np.flatnonzero(blocks == block) for block in range(int(blocks.max()) + 1)])
    remaining = members.shape[1]
    pending = sorted({stop for stop in stops if fewest <= stop < remaining}, reverse=True)
    steps: list[UnitArray] = []
    while True:
        losses = np.sum([reading.losses() for reading in readings], axis=0)
        ranked = np.take_along_axis(members, np.argsort(losses[members], axis=1, kind="stable"), axis=1)
        if remaining <= fewest:
            return np.stack([*steps, *ranked.T])
        chunk = max(1, min(int(remaining * share), remaining - fewest))
        if pending:
            chunk = min(chunk, remaining - pending[0])
        # Of two units that are much alike each is lost for nothing, and both are not.
        while chunk > 1 and _depend(readings, losses, ranked[:, :chunk].reshape(-1)):
            chunk //= 2
        going = ranked[:, :chunk]
        for reading in readings:
            reading.remove(going.reshape(-1))
        steps.extend(going.T)
        members = np.sort(ranked[:, chunk:], axis=1)
        remaining -= chunk
        if pending and remaining == pending[0]:
            on_stop(pending.pop(0))


def _depend(readings: Sequence[Reading], losses: DoubleArray, going: UnitArray) -> bool:
    """Tell whether units make up for each other, so that they lose more at once than one by one."""
    together = sum(reading.together(going) for reading in readings)
    return together > _ALONE * float(losses[going].sum()) + _NOTHING
