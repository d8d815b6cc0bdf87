"""Single weights that stay, chosen and fitted layer by layer so that outputs move little.

A layer is the problem  min over A of |X A - Y|^2  with at most k entries of A not zero, X what it reads in the network
as thinned so far and Y what it put out in the original. It is solved by ADMM with the splitting  A = D, D of k
entries (Boza, "Fast and effective weight update for pruned large language models", 2024; Meng, Behdin, Wang and
Mazumder, "ALPS: improved optimization for highly sparse one-shot pruning for large language models", 2024).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.connections import largest_entries, remaining_entries
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.projections import top_k_mask
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.fit import Fit, Sample, every_other, squared_error
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.moments import cross
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.constants import constant, constants_by_name

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
MaskArray = NDArray[np.bool_]
Times = Callable[[DoubleArray], DoubleArray]

#: Of the share of entries that stays in all layers together, what stays in each at least.
_LEAST: Final = 0.2
#: Steps in which entries go, fewer at a time towards the end.
_STEPS: Final = 15
#: Iterations at the final count, at most, and how many of them the same entries have to stay.
_ITERATIONS: Final = 100
_STILL: Final = 3
#: Penalty of the splitting, for columns of X of unit length, in the beginning.
_PENALTY: Final = 0.1
#: By what the penalty grows when more than so much of the support moved in an iteration.
_GROWTH: Final = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
#: Conjugate gradients end at this residual, relative to the start, or after so many steps.
_TOLERANCE: Final = 1e-9
_MOST_GRADIENTS: Final = 500


# -- one layer ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thinned:
    """A weight with single entries fitted to outputs.

    Attributes:
        fit: the weight, entries that go being zero, and the shift.
        kept: entries that stay, bool ``[blocks, width, outputs]``.
    """

    fit: Fit
    kept: MaskArray


def thin(
    sample: Sample,
    weight: DoubleArray,
    competing: MaskArray,
    count: int,
    *,
    with_shift: bool,
    ridges: Sequence[float],
    first: MaskArray,
) -> Thinned:
    """Choose the entries of a weight that stay and fit them, so that outputs are as near as possible to the targets.

    min over A of  sum |x A - y|^2 + lambda |A - W|^2  with ``count`` entries not zero, lambda = ridge times the mean
    square of the rows that compete, as in ``fit``. The ridge is the one under which the entries of ``first``, fitted to
    every other row, are best on the rows between. Layers wider than ``WIDEST`` keep the entries of ``first``.

    Args:
        weight: W, float64 ``[blocks, width, outputs]``.
        competing: entries that may stay, bool ``[blocks, width, outputs]``.
        count: entries that stay.
        with_shift: whether a constant may be added to the outputs as well.
        ridges: those to choose from.
        first: that many entries, a guess: bool ``[blocks, width, outputs]``.
    """
    ridge = ridges[0]
    if len(ridges) > 1 and sample.rows.shape[1] > 1:
        half, other = _Squares.of(every_other(sample, 0), with_shift=with_shift), every_other(sample, 1)
        errors = [squared_error(other, *half.on(weight, first, each)) for each in ridges]
        ridge = ridges[int(np.argmin(errors))]
    squares = _Squares.of(sample, with_shift=with_shift)
    kept = first if squares.second is None else squares.support(weight, competing, count, ridge)
    return Thinned(Fit(*squares.on(weight, kept, ridge), ridge), kept)


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
        matrix = conjugate_gradients(
            lambda matrix: self.times(matrix) + strength * matrix,
            self.diagonal[:, :, None] + strength,
            self.cross + strength * weight,
            kept,
            np.where(kept, weight, 0.0),
        )
        return matrix, self.goal - np.einsum("bw,bwo->bo", self.means, matrix)

    def support(self, weight: DoubleArray, competing: MaskArray, count: int, ridge: float) -> MaskArray:
        """Return the entries that stay."""
        assert self.second is not None  # else it is too large for this
        strength = self._strength(competing, ridge)
        held = self.second + strength * np.eye(self.second.shape[1])
        return choose_entries(held, self.cross + strength * weight, competing, count)

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

    k comes down to ``count`` in cubic steps (Zhu and Gupta, "To prune, or not to prune", 2017), and rho grows the
    faster the more of the support moves (Meng et al., section 3.2), until it stays. H is decomposed once for all rho.

    Args:
        second: H, float64 ``[blocks, width, width]``, positive semidefinite.
        products: G, float64 ``[blocks, width, outputs]``.
        competing: entries that may be not zero, bool ``[blocks, width, outputs]``.
        count: at most as many as compete.
    """
    total = int(np.count_nonzero(competing))
    if count >= total:
        return competing
    rows = competing.any(axis=2)
    held = second * rows[:, :, None] * rows[:, None, :]  # what does not compete stays where it is, at zero
    lengths = np.sqrt(np.diagonal(held, axis1=1, axis2=2))
    lengths = np.where(lengths > 0, lengths, 1.0)
    values, vectors = np.linalg.eigh(held / (lengths[:, :, None] * lengths[:, None, :]))
    values = np.maximum(values, 0.0)[:, :, None]
    turned = np.swapaxes(vectors, 1, 2)
    goal = turned @ np.where(competing, products / lengths[:, :, None], 0.0)

    def nearest(point: DoubleArray, penalty: float) -> DoubleArray:
        return np.asarray(vectors @ ((goal + penalty * (turned @ point)) / (values + penalty)))

    penalty = _PENALTY
    dense = nearest(np.zeros_like(products), 1e-6)
    split, dual = np.where(competing, dense, 0.0), np.zeros_like(products)
    kept, still = competing, 0
    for iteration in range(1, _STEPS + _ITERATIONS):
        near = nearest(split - dual, penalty) + dual
        left = count + int((total - count) * max(0.0, 1 - iteration / _STEPS) ** 3)
        before, kept = kept, top_k_mask(np.where(competing, np.abs(near), -1.0).astype(np.float32), left)
        split = np.where(kept, near, 0.0)
        dual = near - split
        if left > count:
            continue
        moved = np.count_nonzero(kept & ~before) / count
        still = 0 if moved else still + 1
        if still == _STILL:
            break
        for bound, growth in _GROWTH:
            if moved > bound:
                penalty *= growth
                dual /= growth  # penalty * dual is what it was
                break
    return kept


def conjugate_gradients(
    times: Times, diagonal: DoubleArray, products: DoubleArray, kept: MaskArray, start: DoubleArray
) -> DoubleArray:
    """Solve  H A = G  on the entries of A that stay, for every column by itself: float64 ``[blocks, width, outputs]``.

    Conjugate gradients with the diagonal as preconditioner, all columns side by side as they share H.

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
    for _ in range(_MOST_GRADIENTS):
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


# -- all layers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allotment:
    """Which entries of which weight compete, and how many of them stay.

    Attributes:
        remaining: entries that no removed unit takes along, by name of the weight.
        kept: entries that stay by a first guess; its count is binding: bool by name.
    """

    remaining: Mapping[str, MaskArray]
    kept: Mapping[str, MaskArray]


def allot(network: Network, problem: Problem, keep: KeepArray, batches: Sequence[Feed], effort: Effort) -> Allotment:
    """Divide the share of connections that stays among the weights.

    One threshold holds for all entries: what a layer's outputs lose without it, relative to what they are,

        w_ij^2 H_ii / sum over o of w_o^T H w_o,

    the loss of optimal brain damage (LeCun, Denker and Solla, 1990) where each layer's error counts relative to its
    outputs. A threshold on it is where the last entries that stay are worth the same in every layer, so moving some from
    one to another wins nothing as long as the sum of the layers' relative errors says how far the network is off; sizes
    of weights say nothing of that, as a layer may be scaled against the next. A weight that is not read by a layer known
    here (a table of an embedding, the weight of a recurrent state, one that several nodes share) has H = I: what it is
    multiplied by counts as equally large everywhere. Every weight keeps at least a fifth of the share: errors add up
    only as long as they are small.

    Args:
        keep: units that stay, bool ``[unit_count]``.
        batches: inputs that statistics are collected on.
    """
    weights = _weights_of(network, problem)
    remaining = remaining_entries(problem, keep, {name: array.shape for name, array in weights.items()})
    scores = {name: np.square(array, dtype=np.float64) for name, array in weights.items()}
    scores = {name: array / (array.sum() or 1.0) for name, array in scores.items()}
    scores.update(_losses(network, weights, batches, effort))
    share = problem.connection_share
    raised = {}
    for name, array in scores.items():
        competing = np.where(remaining[name], array, -1.0).astype(np.float32)
        least = int(_LEAST * share * np.count_nonzero(remaining[name]))
        raised[name] = np.where(top_k_mask(competing, least), np.float32(np.inf), competing)
    return Allotment(remaining, largest_entries(raised, remaining, share=share, per_layer=False))


def _weights_of(network: Network, problem: Problem) -> dict[str, FloatArray]:
    values = constants_by_name(network.model)
    return {name: np.asarray(constant(values[name]), np.float32) for name in problem.connections}


def _losses(
    network: Network, weights: Mapping[str, FloatArray], batches: Sequence[Feed], effort: Effort
) -> dict[str, DoubleArray]:
    """What a layer's outputs lose without each entry of its weight, relative to what they are, by name."""
    layers = [layer for layer in network.every_layer if layer.weight in weights]
    if not layers:
        return {}
    matrices = {layer.node: network.matrix(layer).astype(np.float32) for layer in layers}
    inputs, outputs = ({layer.node: _Spread() for layer in layers} for _ in range(2))
    frontier = Frontier(batches, threads=effort.threads, room=0)
    read, last = {layer.data for layer in layers}, max(layer.index for layer in layers)
    for number, values in enumerate(frontier.advance(network.model, read, last)):
        for layer in layers:
            rows = effort.rows_of(layer, values[layer.data], batches[number], number)
            inputs[layer.node].add(rows)
            outputs[layer.node].add(rows @ matrices[layer.node])
    found = {}
    for layer in layers:
        centred = layer.offset is not None
        energy = float(outputs[layer.node].squares(centred=centred).sum())
        losses = np.square(network.matrix(layer)) * inputs[layer.node].squares(centred=centred)[:, :, None]
        like = weights[layer.weight].astype(np.float64)
        found[layer.weight] = layer.weight_of(losses / energy if energy > 0 else losses, like)
    return found


class _Spread:
    """Sums over rows ``[blocks, n, width]`` and over their squares."""

    def __init__(self) -> None:
        self._count = 0
        self._first: DoubleArray = np.zeros(())
        self._second: DoubleArray = np.zeros(())

    def add(self, rows: FloatArray) -> None:
        self._count += rows.shape[1]
        self._first = self._first + rows.sum(axis=1, dtype=np.float64)
        self._second = self._second + np.square(rows, dtype=np.float64).sum(axis=1)

    def squares(self, *, centred: bool) -> DoubleArray:
        """Sums of squares, about the mean if so: float64 ``[blocks, width]``."""
        mean = self._first / max(1, self._count) * centred
        return np.asarray(np.maximum(self._second - mean * self._first, 0.0))
