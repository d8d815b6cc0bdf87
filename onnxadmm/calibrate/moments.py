"""Second moments of what a layer reads, and what is fitted with them: least squares towards given outputs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
FloatArray = NDArray[np.float32]

#: Rows whose products are added up in single precision before they go into the sum, which is in double precision.
_CHUNK = 8192


@dataclass
class Moments:
    """Sums over rows x of a layer and, where there are any, the outputs y they should give.

    Attributes:
        count: rows so far.
        first: sum of x, float64 ``[blocks, width]``.
        second: sum of x x^T, float64 ``[blocks, width, width]``.
        target: sum of y, float64 ``[blocks, outputs]``.
        cross: sum of x y^T, float64 ``[blocks, width, outputs]``.
        power: sum of y^2, float64 ``[blocks]``.
    """

    count: int
    first: DoubleArray
    second: DoubleArray
    target: DoubleArray
    cross: DoubleArray
    power: DoubleArray

    @staticmethod
    def empty(blocks: int, width: int, outputs: int = 0) -> "Moments":
        """Return sums over nothing; without ``outputs`` those of the rows alone are kept."""
        return Moments(
            count=0,
            first=np.zeros((blocks, width)),
            second=np.zeros((blocks, width, width)),
            target=np.zeros((blocks, outputs)),
            cross=np.zeros((blocks, width, outputs)),
            power=np.zeros(blocks),
        )

    def add(self, rows: FloatArray, targets: FloatArray | None = None) -> None:
        """Add rows ``[blocks, n, width]`` and, where they are kept, their outputs ``[blocks, n, outputs]``."""
        self.count += rows.shape[1]
        for start in range(0, rows.shape[1], _CHUNK):
            part = rows[:, start : start + _CHUNK]
            turned = np.swapaxes(part, 1, 2)
            self.first += part.sum(axis=1, dtype=np.float64)
            self.second += turned @ part
            if targets is not None:
                wanted = targets[:, start : start + _CHUNK]
                self.target += wanted.sum(axis=1, dtype=np.float64)
                self.cross += turned @ wanted
                self.power += np.square(wanted, dtype=np.float64).sum(axis=(1, 2))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.target + other.target,
            self.cross + other.cross,
            self.power + other.power,
        )

    def about_the_mean(self) -> "Moments":
        """Return the sums of what differs from the means; the means themselves stay in ``first`` and ``target``."""
        scale = 1.0 / max(self.count, 1)
        return Moments(
            count=self.count,
            first=self.first,
            second=self.second - scale * self.first[:, :, None] * self.first[:, None, :],
            target=self.target,
            cross=self.cross - scale * self.first[:, :, None] * self.target[:, None, :],
            power=self.power - scale * np.square(self.target).sum(axis=1),
        )

    def mean_square(self) -> float:
        """Mean of the diagonal of the second moments: what a ridge is measured in."""
        return float(np.einsum("bii->", self.second)) / max(1, self.first.size)


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
    halves: tuple[Moments, Moments],
    weight: DoubleArray,
    stays: NDArray[np.bool_],
    *,
    with_shift: bool,
    ridges: tuple[float, ...],
) -> Fit:
    """Fit the rows of a weight that stay, so that outputs are as near as possible to the targets.

    min over A of  sum |x A - y|^2 + lambda |A - W|^2,  rows that do not stay being zero, lambda = ridge times the mean
    square of the rows: ridge regression about the weight as it was (He, Zhang and Sun, "Channel pruning for
    accelerating very deep neural networks", 2017, equation 2, for the second step).

    Args:
        halves: moments of two halves of the samples: the ridge is the one whose fit to the first is best on the second.
        weight: W, float64 ``[blocks, width, outputs]``.
        stays: rows that stay, bool ``[blocks, width]``.
        with_shift: whether a constant may be added to the outputs as well.
        ridges: those to choose from, relative.
    """
    first, second = (half.about_the_mean() if with_shift else half for half in halves)
    ridge = ridges[0]
    if len(ridges) > 1:
        errors = [_error(second, _solve(first, weight, stays, each)) for each in ridges]
        ridge = ridges[int(np.argmin(errors))]
    total = halves[0] + halves[1]
    matrix = _solve(total.about_the_mean() if with_shift else total, weight, stays, ridge)
    shift = np.zeros_like(total.target)
    if with_shift and total.count:
        shift = (total.target - np.einsum("bw,bwo->bo", total.first, matrix)) / total.count
    return Fit(matrix, shift, ridge)


def _solve(moments: Moments, weight: DoubleArray, stays: NDArray[np.bool_], ridge: float) -> DoubleArray:
    matrix = np.zeros_like(weight)
    strength = ridge * moments.mean_square()
    for block, rows in enumerate(stays):
        kept = np.flatnonzero(rows)
        if kept.size == 0:
            continue
        square = moments.second[block][np.ix_(kept, kept)]
        square[np.diag_indices(kept.size)] += strength or 1.0
        wanted = moments.cross[block][kept] + (strength or 1.0) * weight[block][kept]
        matrix[block, kept] = np.linalg.solve(square, wanted)
    return matrix


def _error(moments: Moments, matrix: DoubleArray) -> float:
    """Sum of the squared errors of a fit."""
    explained = np.einsum("bwo,bwo->", matrix, moments.second @ matrix)
    return float(explained - 2 * np.einsum("bwo,bwo->", matrix, moments.cross) + moments.power.sum())
