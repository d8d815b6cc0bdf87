"""Weights fitted to outputs by least squares: the rows that stay take over from those that go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.calibrate.moments import cross

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """Rows that a layer reads, and the outputs that they should give.

    Attributes:
        rows: float32 ``[blocks, n, width]``.
        targets: without the constant that is added behind the product, float32 ``[blocks, n, outputs]``.
    """

    rows: FloatArray
    targets: FloatArray

    @staticmethod
    def joined(samples: Sequence["Sample"]) -> "Sample":
        """Return several as one."""
        return Sample(
            np.concatenate([sample.rows for sample in samples], axis=1),
            np.concatenate([sample.targets for sample in samples], axis=1),
        )


@dataclass(frozen=True)
class Bounds:
    """Outputs below ``low`` are as good as ``low`` to what follows, and those above ``high`` as ``high``.

    Attributes:
        low, high: in the same terms as the targets, float32 ``[blocks, 1, outputs]``.
    """

    low: FloatArray
    high: FloatArray

    def reached(self, targets: FloatArray, outputs: FloatArray) -> FloatArray:
        """Return targets that outputs meet already where both lie beyond the same bound."""
        below, above = targets <= self.low, targets >= self.high
        return np.where(
            below, np.minimum(outputs, self.low), np.where(above, np.maximum(outputs, self.high), targets)
        ).astype(np.float32)


@dataclass(frozen=True)
class Fit:
    """Weights fitted to outputs.

    Attributes:
        matrix: float64 ``[blocks, width, outputs]``; rows that do not stay are zero.
        shift: what has to be added to the outputs, float64 ``[blocks, outputs]``; zeros where nothing can be.
        ridge: what the weights were held with, in mean squares of the rows.
    """

    matrix: DoubleArray
    shift: DoubleArray
    ridge: float


def fit(
    sample: Sample,
    weight: DoubleArray,
    stays: NDArray[np.bool_],
    *,
    with_shift: bool,
    ridges: Sequence[float],
    bounds: Bounds | None = None,
    rounds: int = 0,
) -> Fit:
    """Fit the rows of a weight that stay, so that outputs are as near as possible to the targets.

    min over A of  sum |x A - y|^2 + lambda |A - W|^2,  rows that do not stay being zero, lambda = ridge times the mean
    square of the rows: ridge regression about the weight as it was (reconstruction as in He, Zhang and Sun, "Channel
    pruning for accelerating very deep neural networks", 2017, section 3.1). Where an activation behind cuts the outputs
    off, a target beyond the bound is met by any output beyond it: such rows are fitted again towards the nearest output
    that will do, as often as ``rounds`` says. Each round lowers the sum of squares in which they count so; it bounds
    the error behind the activation from above.

    Args:
        weight: W, float64 ``[blocks, width, outputs]``.
        stays: rows that stay, bool ``[blocks, width]``.
        with_shift: whether a constant may be added to the outputs as well.
        ridges: those to choose from, relative. The one whose fit to every other row is best on the rows between.
        bounds: of the outputs; None where nothing is cut off.
        rounds: how often targets beyond a bound are put where the outputs are.
    """
    ridge = ridges[0]
    if len(ridges) > 1 and sample.rows.shape[1] > 1:
        first = _Solver(every_other(sample, 0), weight, stays, with_shift=with_shift)
        other = every_other(sample, 1)
        errors = [squared_error(other, *first.solve(first.sample.targets, each)) for each in ridges]
        ridge = ridges[int(np.argmin(errors))]
    again = bounds is not None and rounds > 0
    solver = _Solver(sample, weight, stays, with_shift=with_shift, again=again)
    matrix, shift = solver.solve(sample.targets, ridge)
    for _ in range(rounds if again else 0):
        assert bounds is not None  # else there are no rounds
        outputs = _outputs(sample.rows, matrix, shift)
        matrix, shift = solver.solve(bounds.reached(sample.targets, outputs), ridge)
    return Fit(matrix, shift, ridge)


def every_other(sample: Sample, start: int) -> Sample:
    """Return every other row, from the first or the second on."""
    return Sample(sample.rows[:, start::2], sample.targets[:, start::2])


def _outputs(rows: FloatArray, matrix: DoubleArray, shift: DoubleArray) -> FloatArray:
    return np.asarray(rows @ matrix.astype(np.float32) + shift.astype(np.float32)[:, None])


def squared_error(sample: Sample, matrix: DoubleArray, shift: DoubleArray) -> float:
    """Return how far a weight's outputs are from the targets, squared and summed up."""
    return float(np.square(_outputs(sample.rows, matrix, shift) - sample.targets, dtype=np.float64).sum())


class _Solver:
    """Solves for the same rows and several ridges, or (``again``) several targets."""

    def __init__(
        self,
        sample: Sample,
        weight: DoubleArray,
        stays: NDArray[np.bool_],
        *,
        with_shift: bool,
        again: bool = False,
    ) -> None:
        self.sample = sample
        self._weight = weight
        self._stays = [np.flatnonzero(rows) for rows in stays]
        count = max(1, sample.rows.shape[1])
        means = sample.rows.mean(axis=1, dtype=np.float64)
        self._means = means if with_shift else np.zeros_like(means)
        self._with_shift = with_shift
        self._count = count
        # With fewer rows than columns the small system is that of the rows: (X^T X + l)^-1 X^T = X^T (X X^T + l)^-1.
        self._by_rows = [kept.size > count for kept in self._stays]
        self._again = again
        self._squares: dict[int, DoubleArray] = {}
        self._inverses: dict[tuple[int, float], DoubleArray] = {}

    def solve(self, targets: FloatArray, ridge: float) -> tuple[DoubleArray, DoubleArray]:
        """Return the weights and the shift for outputs ``[blocks, n, outputs]``."""
        matrix = np.zeros_like(self._weight)
        goal = targets.mean(axis=1, dtype=np.float64) if self._with_shift else np.zeros(self._weight.shape[::2])
        for block, kept in enumerate(self._stays):
            if kept.size:
                wanted = targets[block] - goal[block].astype(np.float32)
                matrix[block, kept] = self._solve(block, kept, wanted, ridge)
        shift = goal - np.einsum("bw,bwo->bo", self._means, matrix)
        return matrix, shift if self._with_shift else np.zeros_like(shift)

    def _solve(self, block: int, kept: NDArray[np.int64], wanted: FloatArray, ridge: float) -> DoubleArray:
        rows = self.sample.rows[block][:, kept] - self._means[block, kept].astype(np.float32)
        before = self._weight[block, kept]
        missing = wanted - rows @ before.astype(np.float32)
        by_rows = self._by_rows[block]
        if block not in self._squares:
            turned = rows if by_rows else rows.T
            self._squares[block] = cross(turned.T[None], turned.T[None])[0]
        products = missing if by_rows else cross(rows[None], missing[None])[0]
        step = self._over_square(block, ridge, kept.size, products)
        return np.asarray(before + (rows.T.astype(np.float64) @ step if by_rows else step))

    def _over_square(self, block: int, ridge: float, width: int, products: Array) -> DoubleArray:
        """Multiply by the inverse of the squares and their ridge; it is kept only where it is needed again."""
        known = self._inverses.get((block, ridge))
        if known is not None:
            return np.asarray(known @ products)
        square = self._squares[block].copy()
        # Rows of nothing but zeros leave the weights as they are.
        square[np.diag_indices(len(square))] += ridge * np.trace(square) / max(1, width) or 1.0
        if not self._again:
            return np.asarray(np.linalg.solve(square, products))
        self._inverses[block, ridge] = np.asarray(np.linalg.inv(square))
        return np.asarray(self._inverses[block, ridge] @ products)
