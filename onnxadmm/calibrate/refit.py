"""The layers behind what goes, fitted anew in the order of the graph: inputs of the cut network, outputs of the whole.

As in Luo, Wu and Lin, "ThiNet", 2017, section 3.2.3, with inputs of the network cut so far (He, Zhang and Sun, 2017,
section 3.1): each layer makes up for the errors of those before it as well as for what it does not see any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.calibrate.allotment import Allotment
from onnxadmm.calibrate.effort import Effort
from onnxadmm.calibrate.fit import Sample, fit
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.narrowing import narrow
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.pairs import Pair
from onnxadmm.graph.constants import set_constants

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]
KeepArray = NDArray[np.bool_]


@dataclass
class Fitted:
    """What was fitted.

    Attributes:
        constants: by name, of the whole network; rows of units that go are zero.
        zeros: entries of connection weights that are zero, those of units that go as well, bool by name; empty when
            connections were left alone.
        sizes: for each layer that was fitted, by node, how many rows it was fitted to, and how many it reads.
    """

    constants: dict[str, Array] = field(default_factory=dict)
    zeros: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


def refit(
    network: Network,
    keep: KeepArray,
    batches: Sequence[Feed],
    effort: Effort,
    *,
    connections: Allotment | None = None,
    on_layer: Callable[[Layer], None] = lambda layer: None,
) -> Fitted:
    """Return constants of the whole network under which it loses little when units and connections go.

    Rows of units that go are zero; nothing has been cut.

    Args:
        keep: which units stay, bool ``[units.count]``.
        batches: inputs.
        connections: how many entries of each weight stay; every layer that has such a weight is fitted then. None
            leaves connections alone.
        on_layer: told of each layer that is done.
    """
    run = _Run(network, keep, batches, effort, connections)
    for layer in layers_to_fit(network, keep, thinned=connections is not None):
        run.fit(layer)
        on_layer(layer)
    return run.fitted


def layers_to_fit(network: Network, keep: KeepArray, *, thinned: bool) -> list[Layer]:
    """Return the layers that a refit looks at, in the order of the graph.

    Args:
        keep: which units stay, bool ``[units.count]``.
        thinned: whether single entries go as well.
    """
    nodes = {layer.node for layer in (network.every_layer if thinned else network.layers)}
    nodes |= {layer.node for pair in network.pairs.values() if _shrinks(pair, keep) for layer in pair.layers}
    return [layer for layer in network.every_layer if layer.node in nodes]


def _shrinks(pair: Pair, keep: KeepArray) -> bool:
    return not keep[pair.units[0]].all()


class _Run:
    """A walk along the graph, the whole network and the cut one side by side."""

    def __init__(
        self, network: Network, keep: KeepArray, batches: Sequence[Feed], effort: Effort, connections: Allotment | None
    ) -> None:
        self.fitted = Fitted()
        self._network, self._keep, self._batches, self._effort = network, keep, batches, effort
        self._connections = connections
        self._stays = np.append(keep, True)  # unit -1 is the last element: it always stays
        self._cut = network.masked({}, keep)
        room = effort.memory // 4
        self._frontiers = [Frontier(batches, threads=effort.threads, room=room) for _ in range(2)]
        shrinking = [pair for pair in network.pairs.values() if _shrinks(pair, keep)]
        self._pairs = {layer.node: pair for pair in shrinking for layer in pair.layers}
        if connections is not None:
            self.fitted.zeros.update({name: ~mask for name, mask in connections.kept.items()})
            self._replace(connections.without_layer(network))

    def fit(self, layer: Layer) -> None:
        """Fit a layer, and the one that its outputs are multiplied with where their inner size shrinks."""
        pair = self._pairs.get(layer.node)
        if pair is None:
            if layer.weight in self.fitted.zeros or self._sees_less(layer):
                (sample,) = self._samples([layer])
                self._replace(self._network.with_matrix(layer, *self._fit(layer, sample)))
        elif layer is pair.layers[0]:
            samples = self._samples(pair.layers)
            fits = [self._fit(each, sample) for each, sample in zip(pair.layers, samples, strict=True)]
            moments = [Moments.of(sample.rows) for sample in samples]
            self._replace(narrow(self._network, pair, fits, moments, self._keep))

    def _sees_less(self, layer: Layer) -> bool:
        """Whether a layer reads anything else than in the whole network."""
        return bool(self.fitted.constants) or not self._stays[self._network.reads[layer.node]].all()

    def _fit(self, layer: Layer, sample: Sample) -> tuple[DoubleArray, DoubleArray]:
        """Return a layer's matrix and the shift of its outputs."""
        rows_stay, matrix = self._stays[self._network.reads[layer.node]], self._network.matrix(layer)
        self.fitted.sizes[layer.node] = (sample.rows.shape[1], int(rows_stay.sum(axis=1).max()))
        if self._connections is not None and layer.weight in self.fitted.zeros:
            found, zeros = self._connections.thin(layer, matrix, sample, self._effort.ridges)
            self.fitted.zeros[layer.weight] = zeros
        else:
            found = fit(
                sample,
                matrix,
                rows_stay,
                with_shift=layer.offset is not None,
                ridges=self._effort.ridges,
                bounds=self._network.bounds(layer),
                rounds=self._effort.rounds,
            )
        return found.matrix, found.shift

    def _replace(self, constants: Mapping[str, Array]) -> None:
        set_constants(self._cut, constants)
        self.fitted.constants.update(constants)

    def _samples(self, layers: Sequence[Layer]) -> list[Sample]:
        """What layers read in the cut network, and what they put out in the whole one for the same places.

        Args:
            layers: what they read is computed before the first of them.
        """
        count = sum(max((len(array) for array in feed.values() if array.ndim), default=1) for feed in self._batches)
        matrices = [self._network.matrix(layer).astype(np.float32) for layer in layers]
        parts: list[list[Sample]] = [[] for _ in layers]
        models = (self._network.model, self._cut)
        names, index = {layer.data for layer in layers}, layers[0].index
        runs = [run.advance(model, names, index) for run, model in zip(self._frontiers, models, strict=True)]
        for number, (before, after) in enumerate(zip(*runs, strict=True)):
            for layer, matrix, found in zip(layers, matrices, parts, strict=True):
                bounded = self._effort.fewer_rows(layer, matrix.shape[1], count)
                rows = [
                    bounded.rows_of(layer, values[layer.data], self._batches[number], number)
                    for values in (before, after)
                ]
                found.append(Sample(rows[1], np.asarray(rows[0] @ matrix, np.float32)))
        return [Sample.joined(found) for found in parts]
