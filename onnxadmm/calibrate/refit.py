"""The layers behind what goes, fitted anew in the order of the graph: inputs of the cut network, outputs of the whole.

As in Luo, Wu and Lin, "ThiNet", 2017, section 3.2.3, with inputs of the network cut so far (He, Zhang and Sun, 2017,
section 3.1): each layer makes up for the errors of those before it as well as for what it does not see any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.calibrate.allotment import Allotment
from onnxadmm.calibrate.effort import Effort
from onnxadmm.calibrate.fit import Sample, fit
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.constants import set_constants

Array = NDArray[Any]
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
    stays = np.append(keep, True)  # unit -1 is the last element: it always stays
    current = network.masked({}, keep)
    whole, cut = (Frontier(batches, threads=effort.threads, room=effort.memory // 4) for _ in range(2))
    fitted = Fitted()
    if connections is not None:
        fitted.zeros.update({name: ~mask for name, mask in connections.kept.items()})
        fitted.constants.update(connections.without_layer(network))
        set_constants(current, fitted.constants)
    for layer in network.layers if connections is None else network.every_layer:
        rows_stay = stays[network.reads[layer.node]]
        thinned = layer.weight in fitted.zeros
        if thinned or fitted.constants or not rows_stay.all():  # before that nothing is to be made up for
            sample = _sample(network, layer, batches, (whole, cut), current, effort)
            if connections is not None and thinned:
                found, zeros = connections.thin(layer, network.matrix(layer), sample, effort.ridges)
                fitted.zeros[layer.weight] = zeros
            else:
                found = fit(
                    sample,
                    network.matrix(layer),
                    rows_stay,
                    with_shift=layer.offset is not None,
                    ridges=effort.ridges,
                    bounds=network.bounds(layer),
                    rounds=effort.rounds,
                )
            constants = network.with_matrix(layer, found.matrix, found.shift)
            set_constants(current, constants)
            fitted.constants.update(constants)
            fitted.sizes[layer.node] = (sample.rows.shape[1], int(rows_stay.sum(axis=1).max()))
        on_layer(layer)
    return fitted


def _sample(
    network: Network,
    layer: Layer,
    batches: Sequence[Feed],
    frontiers: tuple[Frontier, Frontier],
    current: Any,
    effort: Effort,
) -> Sample:
    """What a layer reads in the cut network, and what it puts out in the whole one for the same places."""
    matrix = network.matrix(layer).astype(np.float32)
    samples = sum(max((len(array) for array in feed.values() if array.ndim), default=1) for feed in batches)
    bounded = effort.fewer_rows(layer, matrix.shape[1], samples)
    whole, cut = frontiers
    models = (network.model, current)
    runs = [run.advance(model, [layer.data], layer.index) for run, model in zip((whole, cut), models, strict=True)]
    parts = []
    for number, (before, after) in enumerate(zip(*runs, strict=True)):
        rows = [bounded.rows_of(layer, values[layer.data], batches[number], number) for values in (before, after)]
        parts.append(Sample(rows[1], np.asarray(rows[0] @ matrix, np.float32)))
    return Sample.joined(parts)
