"""Single weights that stay, chosen and fitted layer by layer so that outputs move little.

A layer is the problem  min over A of |X A - Y|^2  with at most k entries of A not zero, X what it reads in the network
as thinned so far and Y what it put out in the original. It is solved by ADMM with the splitting  A = D, D of k
entries (Boza, "Fast and effective weight update for pruned large language models", 2024; Meng, Behdin, Wang and
Mazumder, "ALPS: improved optimization for highly sparse one-shot pruning for large language models", 2024).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.projections import top_k_mask
from onnxadmm.calibrate.effort import WIDEST
from onnxadmm.calibrate.fit import Fit, Sample, every_other, squared_error
from onnxadmm.calibrate.moments import cross

DoubleArray = NDArray[np.float64]
MaskArray = NDArray[np.bool_]
Times = Callable[[DoubleArray], DoubleArray]

#: Steps in which entries go, fewer at a time towards the end.
_STEPS: Final = 10
#: Iterations at the final count: at most, and how many of them the same entries have to stay.
_ITERATIONS: Final = 100
_STILL: Final = 3
#: Penalty of the splitting for columns of X of unit length, and by what it grows when the support moved for so long.
_PENALTY: Final = 0.1
_GROWTH: Final = 1.3
_PATIENCE: Final = 8
#: Conjugate gradients end at this residual, relative to the products, or after so many steps.
_TOLERANCE: Final = 1e-9
_MOST_STEPS: Final = 100


def thin(
    sample: Sample,
    weight: DoubleArray,
    competing: MaskArray,
    *,
    first: MaskArray,
    with_shift: bool,
    ridges: Sequence[float],
) -> tuple[Fit, MaskArray]:
    """Choose the entries of a weight that stay and fit them, so that outputs are as near as possible to the targets.

    min over A of  sum |x A - y|^2 + lambda |A - W|^2  with as many entries not zero as ``first`` has, lambda = ridge
    times the mean square of the rows that compete, as in ``fit``. The ridge is the one under which the entries of
    ``first``, fitted to every other row, are best on the rows between. Layers wider than ``WIDEST`` keep ``first``.

    Args:
        weight: W, float64 ``[blocks, width, outputs]``.
        competing: entries that may stay, bool ``[blocks, width, outputs]``.
        first: a guess of those that stay, some of them: bool ``[blocks, width, outputs]``.
        with_shift: whether a constant may be added to the outputs as well.
        ridges: those to choose from, above 0.

    Returns:
        the fit, whose matrix is zero elsewhere, and the entries that stay, bool ``[blocks, width, outputs]``.
    """
    ridge = ridges[0]
    if len(ridges) > 1 and sample.rows.shape[1] > 1:
        half, other = _Squares.of(every_other(sample, 0), with_shift=with_shift), every_other(sample, 1)
        errors = [squared_error(other, *half.on(weight, first, each)) for each in ridges]
        ridge = ridges[int(np.argmin(errors))]
    squares = _Squares.of(sample, with_shift=with_shift)
    kept = squares.support(weight, competing, first, ridge)
    return Fit(*squares.on(weight, kept, ridge), ridge), kept


@dataclass(frozen=True)
class _Squares:
    """The sum of squares that a layer is fitted by, rows and targets about their means where there is an offset.

    Attributes:
        times: ``X^T X`` times a matrix ``[blocks, width, outputs]``.
        second: X^T X, float64 ``[blocks, width, width]``; None where that is too large.
        diagonal: of X^T X, float64 ``[blocks, width]``.
        cross: X^T Y, float64 ``[blocks, width, outputs]``.
        means, goal: of the rows and of the targets; zeros without an offset.
    """

    times: Times
    second: DoubleArray | None
    diagonal: DoubleArray
    cross: DoubleArray
    means: DoubleArray
    goal: DoubleArray

    @staticmethod
    def of(sample: Sample, *, with_shift: bool) -> "_Squares":
        rows, targets = sample.rows, sample.targets
        means, goal = (array.mean(axis=1, dtype=np.float64) * with_shift for array in (rows, targets))
        rows = rows - means.astype(np.float32)[:, None]
        targets = targets - goal.astype(np.float32)[:, None]
        if rows.shape[2] <= WIDEST:
            second = cross(rows, rows)
            diagonal = np.diagonal(second, axis1=1, axis2=2)
            return _Squares(lambda matrix: second @ matrix, second, diagonal, cross(rows, targets), means, goal)

        def times(matrix: DoubleArray) -> DoubleArray:
            return cross(rows, rows @ matrix.astype(np.float32))

        diagonal = np.square(rows, dtype=np.float64).sum(axis=1)
        return _Squares(times, None, diagonal, cross(rows, targets), means, goal)

    def on(self, weight: DoubleArray, kept: MaskArray, ridge: float) -> tuple[DoubleArray, DoubleArray]:
        """Return the best weights with these entries, and the shift ``[blocks, outputs]``."""
        strength = self._strength(kept, ridge)
        products = self.cross + strength * weight
        sizes = kept.sum(axis=1, dtype=np.float64)
        if self.second is not None and (sizes**3).sum() / 3 <= _MOST_STEPS * 2 * self.second.size * kept.shape[2]:
            matrix = solve(self.second + strength * np.eye(self.second.shape[1]), products, kept)
        else:
            matrix = conjugate_gradients(
                lambda matrix: self.times(matrix) + strength * matrix,
                self.diagonal[:, :, None] + strength,
                products,
                kept,
                np.where(kept, weight, 0.0),
            )
        return matrix, self.goal - np.einsum("bw,bwo->bo", self.means, matrix)

    def support(self, weight: DoubleArray, competing: MaskArray, first: MaskArray, ridge: float) -> MaskArray:
        """Return the entries that stay, as many as in the first guess."""
        if self.second is None:
            return first
        strength = self._strength(competing, ridge)
        held = self.second + strength * np.eye(self.second.shape[1])
        return choose_entries(held, self.cross + strength * weight, competing, int(np.count_nonzero(first)))

    def _strength(self, entries: MaskArray, ridge: float) -> DoubleArray:
        """What each block is held with, ``[blocks, 1, 1]``."""
        rows = entries.any(axis=2)
        mean = (self.diagonal * rows).sum(axis=1) / np.maximum(1, rows.sum(axis=1))
        # Rows of nothing but zeros leave the weights as they are.
        return np.where(mean > 0, ridge * mean, 1.0)[:, None, None]


def choose_entries(second: DoubleArray, products: DoubleArray, competing: MaskArray, count: int) -> MaskArray:
    """Choose the entries of A that are not zero where  tr(A^T H A - 2 A^T G)  is small: bool, exactly ``count`` True.

    ADMM with columns of unit length, A being multiplied by the square root of H's diagonal (Boza, section 3):

        B = (H + rho)^-1 (G + rho (D - U)),   D = the k largest of |B + U|,   U = U + B - D.

    k comes down to ``count`` in cubic steps (Zhu and Gupta, "To prune, or not to prune", 2017). Then rho grows as long
    as the support moves (Meng et al., section 3.2), but seldom: an inverse for each rho takes less time than one
    decomposition for all of them, which also makes two products of every one.

    Args:
        second: H, float64 ``[blocks, width, width]``, positive semidefinite.
        products: G, float64 ``[blocks, width, outputs]``.
        competing: entries that may be not zero, bool ``[blocks, width, outputs]``.
        count: at most as many as compete.
    """
    total = int(np.count_nonzero(competing))
    if count >= total:
        return competing
    rows: MaskArray = np.asarray(competing.any(axis=2))
    held = second * rows[:, :, None] * rows[:, None, :]  # what does not compete stays where it is, at zero
    lengths = np.sqrt(np.diagonal(held, axis1=1, axis2=2))
    lengths = np.where(lengths > 0, lengths, 1.0)
    identity = np.eye(held.shape[1])
    held = held / (lengths[:, :, None] * lengths[:, None, :])
    goal = np.where(competing, products / lengths[:, :, None], 0.0)
    penalty, inverse = _PENALTY, np.linalg.inv(held + _PENALTY * identity)
    split, dual = inverse @ goal, np.zeros_like(goal)
    kept, still, patience = competing, 0, _PATIENCE
    for iteration in range(1, _STEPS + _ITERATIONS):
        near = inverse @ (goal + penalty * (split - dual)) + dual
        left = count + int((total - count) * max(0.0, 1 - iteration / _STEPS) ** 3)
        before, kept = kept, _largest(near, competing, left)
        split = np.where(kept, near, 0.0)
        dual = near - split
        if left > count:
            continue
        still = still + 1 if np.array_equal(kept, before) else 0
        if still == _STILL:
            break
        patience -= 1
        if patience == 0:
            penalty *= _GROWTH
            dual /= _GROWTH  # their product stays
            inverse, patience = np.linalg.inv(held + penalty * identity), _PATIENCE
    return kept


def _largest(array: DoubleArray, competing: MaskArray, count: int) -> MaskArray:
    return top_k_mask(np.where(competing, np.abs(array), -1.0).astype(np.float32), count)


def solve(second: DoubleArray, products: DoubleArray, kept: MaskArray) -> DoubleArray:
    """Solve  H A = G  on the entries of A that stay, for every column by itself: float64 ``[blocks, width, outputs]``.

    Args:
        second: H, float64 ``[blocks, width, width]``, positive definite.
        products: G.
        kept: entries that stay, bool in the shape of G.
    """
    found = np.zeros_like(products)
    for block in range(len(kept)):
        patterns, columns = np.unique(kept[block], axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            here = np.ix_(np.flatnonzero(pattern), np.flatnonzero(columns.reshape(-1) == number))
            found[block][here] = np.linalg.solve(second[block][np.ix_(pattern, pattern)], products[block][here])
    return found


def conjugate_gradients(
    times: Times, diagonal: DoubleArray, products: DoubleArray, kept: MaskArray, start: DoubleArray
) -> DoubleArray:
    """Solve as ``solve`` does, without H itself and for all columns side by side, with the diagonal as preconditioner.

    Args:
        times: H times a matrix; H is positive semidefinite.
        diagonal: of H, that broadcasts to ``products``.
        products: G.
        kept: entries that stay, bool in the shape of G.
        start: zero where nothing stays.
    """
    scale = np.where(kept, 1.0 / np.where(diagonal > 0, diagonal, 1.0), 0.0)
    found = start
    residual = np.where(kept, products - times(start), 0.0)
    step = scale * residual
    size = np.einsum("bwo,bwo->bo", residual, step)[:, None]
    # Relative to the products: a start that is right already must not be refined down to noise.
    enough = _TOLERANCE**2 * np.einsum("bwo,bwo->bo", products, scale * products)[:, None]
    for _ in range(_MOST_STEPS):
        if np.all(size <= enough):
            break
        ahead = np.where(kept, times(step), 0.0)
        curved = np.einsum("bwo,bwo->bo", step, ahead)[:, None]
        along = np.divide(size, curved, out=np.zeros_like(size), where=(curved > 0) & (size > enough))
        found = found + along * step
        residual = residual - along * ahead
        before, size = size, np.einsum("bwo,bwo->bo", residual, scale * residual)[:, None]
        step = scale * residual + np.divide(size, before, out=np.zeros_like(size), where=before > 0) * step
    return found
