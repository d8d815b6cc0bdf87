"""How many entries of each weight stay, when a share of them stays in all weights together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.connections import largest_of_all, remaining_entries
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.projections import top_k_mask
from onnxadmm.calibrate.connections import thin
from onnxadmm.calibrate.distance import Distance
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.fit import Fit, Sample
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.constants import constant, constants_by_name

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
MaskArray = NDArray[np.bool_]

#: Of the share of entries that stays in all weights together, what stays in each at least.
_LEAST: Final = 0.5
#: Relative error of a layer's outputs at which it is measured how far the network is off.
_PROBED: Final = 0.05
#: What a network that puts out no finite numbers counts as.
_FAR: Final = 1e9


@dataclass(frozen=True)
class Allotment:
    """Which entries of which weight compete, and how many of them stay.

    Attributes:
        remaining: entries that no removed unit takes along, by name of the weight.
        kept: entries that stay by a first guess; its count is binding: bool by name.
    """

    remaining: Mapping[str, MaskArray]
    kept: Mapping[str, MaskArray]

    def without_layer(self, network: Network) -> dict[str, FloatArray]:
        """Return the weights that no layer reads with the entries that stay; nothing makes up for the others."""
        layers = {layer.weight for layer in network.every_layer}
        weights = _weights(network, [name for name in self.kept if name not in layers])
        return {name: np.where(self.kept[name], array, np.float32(0.0)) for name, array in weights.items()}

    def thin(self, layer: Layer, weight: DoubleArray, sample: Sample, ridges: Sequence[float]) -> tuple[Fit, MaskArray]:
        """Fit a layer with as many entries as it is allotted; return it, and its entries that are zero.

        Args:
            weight: of the layer, float64 ``[blocks, width, outputs]``.
            sample: what it reads, and what it should put out.
            ridges: those to choose from.

        Returns:
            the fit, and bool in the shape of the layer's weight in the model.
        """
        first = self.kept[layer.weight]
        found, kept = thin(
            sample,
            weight,
            layer.matrix(self.remaining[layer.weight]) > 0,
            first=layer.matrix(first) > 0,
            with_shift=layer.offset is not None,
            ridges=ridges,
        )
        return found, ~layer.weight_of(kept, first)


def allot(
    network: Network,
    problem: Problem,
    keep: KeepArray,
    batches: Sequence[Feed],
    effort: Effort,
    *,
    distance: Distance | None = None,
) -> Allotment:
    """Divide the share of connections that stays among the weights.

    One threshold holds for all entries: how far the network is off without one when the others of its column make up
    for it,

        s w_ij^2 / (H^-1)_ii / sum over o of w_o^T H w_o.

    The quotient is the loss of the optimal brain surgeon (Hassibi and Stork, 1992) relative to the layer's outputs:
    sizes of weights say nothing, as a layer may be scaled against the next, and with H_ii in the place of 1 / (H^-1)_ii
    (optimal brain damage) layers that read smooth images, whose entries make up for each other, look far too dear. s is
    how far the network is off for so much relative error, and is measured: a weight loses its least entries until its
    outputs are about 5 % off, all else being whole. At the threshold the last entries that stay are worth the same in
    every layer, so that moving some from one to another wins nothing as long as errors add up. They do while they are
    small, and so every weight keeps at least half of the share.

    A weight that is read by no layer known here (a table of an embedding, the weight of a recurrent state, one that
    several nodes share) has H = I: what it is multiplied by counts as uncorrelated and equally large.

    Args:
        keep: units that stay, bool ``[unit_count]``.
        batches: inputs that statistics are collected on.
        distance: from the original; None: s is 1, an error counts the same in every layer.
    """
    weights = _weights(network, problem.connections)
    remaining = remaining_entries(problem, keep, {name: array.shape for name, array in weights.items()})
    scores = _losses(network, weights, batches, effort, distance)
    share = problem.connection_share
    raised = {}
    for name, array in scores.items():
        competing = np.where(remaining[name], array, -1.0).astype(np.float32)
        least = int(_LEAST * share * np.count_nonzero(remaining[name]))
        raised[name] = np.where(top_k_mask(competing, least), np.float32(np.inf), competing)
    return Allotment(remaining, largest_of_all(raised, remaining, share))


def _weights(network: Network, names: Iterable[str]) -> dict[str, FloatArray]:
    values = constants_by_name(network.model)
    return {name: np.asarray(constant(values[name]), np.float32) for name in names}


def _losses(
    network: Network,
    weights: Mapping[str, FloatArray],
    batches: Sequence[Feed],
    effort: Effort,
    distance: Distance | None,
) -> dict[str, DoubleArray]:
    """How far the network is off without each entry of each weight, by name."""

    def per_error(constants: Mapping[str, Array], error: float) -> float:
        if distance is None:
            return 1.0
        (found,) = distance([constants])
        # Not 0, so that entries of a weight that nothing depends on are told apart all the same.
        return float(np.clip(np.nan_to_num(found, nan=_FAR), 1e-9, _FAR)) / (error or 1.0)

    frontier = Frontier(batches, threads=effort.threads, room=effort.memory // 4)
    found = {}
    for layer in network.every_layer:
        if layer.weight in weights:
            matrix = network.matrix(layer)
            inputs = _Inputs(*matrix.shape[:2], centred=layer.offset is not None)
            for number, values in enumerate(frontier.advance(network.model, [layer.data], layer.index)):
                inputs.add(effort.rows_of(layer, values[layer.data], batches[number], number))
            energy = inputs.energy(matrix) or 1.0
            less = _without_least(matrix, np.square(matrix) * inputs.squares[:, :, None] / energy)
            shift = np.einsum("bw,bwo->bo", inputs.mean, matrix - less)
            scale = per_error(network.with_matrix(layer, less, shift), inputs.energy(matrix - less) / energy) / energy
            losses = scale * np.square(matrix) * inputs.alone(effort.order_ridge)[:, :, None]
            found[layer.weight] = layer.weight_of(losses, weights[layer.weight].astype(np.float64))
    for name, array in weights.items():
        if name not in found:
            shares = np.square(array, dtype=np.float64) / (np.square(array, dtype=np.float64).sum() or 1.0)
            less = _without_least(array, shares)
            found[name] = shares * per_error({name: less}, float(shares[less == 0].sum()))
    return found


def _without_least(array: Array, shares: DoubleArray) -> Array:
    """Return an array without the entries that come to ``_PROBED`` together, beginning with the least; one at least."""
    order = np.argsort(shares, axis=None, kind="stable")
    count = max(1, int(np.searchsorted(np.cumsum(shares.reshape(-1)[order]), _PROBED)))
    less = array.copy()
    less.reshape(-1)[order[:count]] = 0
    return less


class _Inputs:
    """Second moments of what a layer reads, about the mean if so.

    What is too wide is looked at in runs, as if they were not correlated.
    """

    def __init__(self, blocks: int, width: int, *, centred: bool) -> None:
        bounds = np.linspace(0, width, -(-width // WIDEST) + 1).astype(int)
        self._runs = [slice(start, stop) for start, stop in pairwise(bounds)]
        self._moments = [Moments.empty(blocks, run.stop - run.start) for run in self._runs]
        self._centred = centred

    def add(self, rows: FloatArray) -> None:
        """Add rows ``[blocks, n, width]``."""
        for run, moments in zip(self._runs, self._moments, strict=True):
            moments.add(rows[:, :, run])

    @property
    def mean(self) -> DoubleArray:
        """Mean row, float64 ``[blocks, width]``."""
        return np.concatenate([moments.mean for moments in self._moments], axis=1)

    @property
    def squares(self) -> DoubleArray:
        """Sums of squares, float64 ``[blocks, width]``."""
        return np.concatenate([np.diagonal(second, axis1=1, axis2=2) for second in self._seconds()], axis=1)

    def energy(self, matrix: DoubleArray) -> float:
        """Return the sum of squares of what a matrix ``[blocks, width, outputs]`` makes of the rows."""
        parts = zip(self._runs, self._seconds(), strict=True)
        return sum(float(np.einsum("bwo,bwo->", matrix[:, run], second @ matrix[:, run])) for run, second in parts)

    def alone(self, ridge: float) -> DoubleArray:
        """Return the part of ``squares`` that others of a row cannot make up for, ``[blocks, width]``."""
        return np.concatenate([_alone(second, ridge) for second in self._seconds()], axis=1)

    def _seconds(self) -> Iterator[DoubleArray]:
        return (each.about_the_mean() if self._centred else each.second for each in self._moments)


def _alone(second: DoubleArray, ridge: float) -> DoubleArray:
    strength = ridge * np.trace(second, axis1=1, axis2=2) / second.shape[1]
    strength = np.where(strength > 0, strength, 1.0)[:, None, None]
    inverse = np.linalg.inv(second + strength * np.eye(second.shape[1]))
    return np.asarray(1.0 / np.diagonal(inverse, axis1=1, axis2=2))
