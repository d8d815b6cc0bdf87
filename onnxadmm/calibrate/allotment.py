"""How many entries of each weight stay, when a share of them stays in all weights together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.connections import largest_entries, remaining_entries
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.projections import top_k_mask
from onnxadmm.calibrate.connections import thin
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.fit import Fit, Sample
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.constants import constant, constants_by_name

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
MaskArray = NDArray[np.bool_]

#: Of the share of entries that stays in all weights together, what stays in each at least.
_LEAST: Final = 0.2


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


def allot(network: Network, problem: Problem, keep: KeepArray, batches: Sequence[Feed], effort: Effort) -> Allotment:
    """Divide the share of connections that stays among the weights.

    One threshold holds for all entries: what a layer's outputs lose without it when the others of its column make up
    for it, relative to what they are,

        w_ij^2 / (H^-1)_ii / sum over o of w_o^T H w_o,

    the loss of the optimal brain surgeon (Hassibi and Stork, 1992), every layer's error being relative to its outputs:
    sizes of weights say nothing of that, as a layer may be scaled against the next. At the threshold the last entries
    that stay are worth the same in every layer, so that moving some from one to another wins nothing as long as the
    sum of the layers' errors says how far the network is off. That others make up for it is what tells layers apart:
    with H_ii in the place of 1 / (H^-1)_ii (optimal brain damage) those that read smooth images look far too dear.

    A weight that is read by no layer known here (a table of an embedding, the weight of a recurrent state, one that
    several nodes share) has H = I: what it is multiplied by counts as uncorrelated and equally large. Every weight
    keeps at least a fifth of the share, as errors add up only while they are small.

    Args:
        keep: units that stay, bool ``[unit_count]``.
        batches: inputs that statistics are collected on.
    """
    weights = _weights(network, problem.connections)
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


def _weights(network: Network, names: Iterable[str]) -> dict[str, FloatArray]:
    values = constants_by_name(network.model)
    return {name: np.asarray(constant(values[name]), np.float32) for name in names}


def _losses(
    network: Network, weights: Mapping[str, FloatArray], batches: Sequence[Feed], effort: Effort
) -> dict[str, DoubleArray]:
    """What a layer's outputs lose without each entry of its weight, relative to what they are, by name."""
    frontier = Frontier(batches, threads=effort.threads, room=effort.memory // 4)
    found = {}
    for layer in network.every_layer:
        if layer.weight not in weights:
            continue
        matrix = network.matrix(layer)
        # What is too wide is looked at in runs, as if they were not correlated.
        runs = np.array_split(np.arange(matrix.shape[1]), -(-matrix.shape[1] // WIDEST))
        sums = [Moments.empty(len(matrix), run.size) for run in runs]
        for number, values in enumerate(frontier.advance(network.model, [layer.data], layer.index)):
            rows = effort.rows_of(layer, values[layer.data], batches[number], number)
            for run, moments in zip(runs, sums, strict=True):
                moments.add(rows[:, :, run[0] : run[-1] + 1])
        losses, energy = np.empty_like(matrix), 0.0
        for run, moments in zip(runs, sums, strict=True):
            second = moments.about_the_mean() if layer.offset is not None else moments.second
            energy += float(np.einsum("bwo,bwo->", matrix[:, run], second @ matrix[:, run]))
            losses[:, run] = np.square(matrix[:, run]) * _alone(second, effort.order_ridge)[:, :, None]
        like = weights[layer.weight].astype(np.float64)
        found[layer.weight] = layer.weight_of(losses / energy if energy > 0 else losses, like)
    return found


def _alone(second: DoubleArray, ridge: float) -> DoubleArray:
    """Return what the others of a row cannot make up for of each, ``1 / (H^-1)_ii``: float64 ``[blocks, width]``."""
    strength = ridge * np.trace(second, axis1=1, axis2=2) / second.shape[1]
    strength = np.where(strength > 0, strength, 1.0)[:, None, None]
    inverse = np.linalg.inv(second + strength * np.eye(second.shape[1]))
    return np.asarray(1.0 / np.diagonal(inverse, axis1=1, axis2=2))
