"""What each group loses as it shrinks: the order of its units, and measured losses at some counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.allocation import Curve
from onnxadmm.admm.ladder import make_ladder
from onnxadmm.admm.problem import GateGroup, UnitArray
from onnxadmm.calibrate.distance import Distance
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.narrowing import narrow
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.order import FixedReading, LayerReading, Reading, removal_order

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]
#: What a network that puts out no finite numbers counts as.
_FAR = 1e9


@dataclass(frozen=True)
class Shrinking:
    """How a group shrinks.

    Attributes:
        order: removal steps, the first row goes first, units numbered as in the problem: int64 ``[steps, blocks]``.
        curve: loss at counts of steps that stay.
    """

    order: UnitArray
    curve: Curve


def measure(
    network: Network,
    groups: Sequence[GateGroup],
    batches: Sequence[Feed],
    scores: DoubleArray,
    distance: Distance,
    effort: Effort,
) -> Iterator[tuple[GateGroup, Shrinking]]:
    """Yield each group and how it shrinks, those that are read first in the graph first.

    The layers that read a group are fitted anew by closed form for each count; all else is as in the original.

    Args:
        batches: inputs that statistics are collected on.
        scores: of each unit, relative to its group, float64 ``[units.count]``: for what reads units and is no layer.
        distance: from the original.
    """
    ordered = sorted(groups, key=lambda group: network.first_reader(group.places))
    for chunk in _chunks(network, ordered, effort.memory // 2):
        layers = {layer.node: layer for group in chunk for layer in _readers(network, group)}
        moments = _statistics(network, list(layers.values()), batches, effort)
        for group in chunk:
            yield group, _shrinking(network, group, moments, scores, distance, effort)


def _readers(network: Network, group: GateGroup) -> list[Layer]:
    """Layers that read a group, those with too many columns left out, or whose product does."""
    pair = network.pairs.get(group.start)
    if pair is not None:
        return list(pair.layers)
    return [
        layer
        for layer in network.layers
        if _local(network, layer, group).max(initial=-1) >= 0 and network.reads[layer.node].shape[1] <= WIDEST
    ]


def _local(network: Network, layer: Layer, group: GateGroup) -> UnitArray:
    """Unit of each row counted from the group's first, -1 where it is of another: int64 ``[blocks, width]``."""
    units = network.reads[layer.node] - group.start
    return np.where((units >= 0) & (units < group.count), units, -1)


def _chunks(network: Network, groups: Sequence[GateGroup], room: int) -> Iterator[list[GateGroup]]:
    """Yield runs of groups whose second moments, with their inverses, take so many bytes together."""
    chunk: list[GateGroup] = []
    known: set[str] = set()
    taken = 0
    for group in groups:
        sizes = {layer.node: 24 * np.square(network.reads[layer.node].shape[1]) * layer.blocks
                 for layer in _readers(network, group)}  # fmt: skip
        more = sum(int(size) for node, size in sizes.items() if node not in known)
        if chunk and taken + more > room:
            yield chunk
            chunk, known, taken = [], set(), 0
            more = sum(int(size) for size in sizes.values())
        chunk.append(group)
        known |= sizes.keys()
        taken += more
    if chunk:
        yield chunk


def _statistics(
    network: Network, layers: Sequence[Layer], batches: Sequence[Feed], effort: Effort
) -> Mapping[str, Moments]:
    """Second moments of what layers read in the original, by node."""
    found = {layer.node: Moments.empty(*network.reads[layer.node].shape) for layer in layers}
    if not layers:
        return found
    frontier = Frontier(batches, threads=effort.threads, room=0)
    names, last = {layer.data for layer in layers}, max(layer.index for layer in layers)
    for number, values in enumerate(frontier.advance(network.model, names, last)):
        for layer in layers:
            found[layer.node].add(effort.rows_of(layer, values[layer.data], batches[number], number))
    return found


def _shrinking(
    network: Network,
    group: GateGroup,
    moments: Mapping[str, Moments],
    scores: DoubleArray,
    distance: Distance,
    effort: Effort,
) -> Shrinking:
    size = group.count // group.block_count
    fewest = make_ladder(group, np.stack(group.members, axis=1)).fewest
    # The fewest are looked at as well: how far a loss goes on rising below the lowest level nobody can tell.
    stops = [fewest, *(max(1, round(level * size)) for level in effort.levels)]
    if group.start in network.pairs:
        order, taken = _narrowed(network, group, moments, stops)
    else:
        order, taken = _ordered(network, group, moments, scores, effort, fewest=fewest, stops=stops)
    changes = [
        network.without_units(constants, _without(network, order[: size - left])) for left, constants in taken.items()
    ]
    losses = {
        left: max(0.0, loss) if np.isfinite(loss) else _FAR for left, loss in zip(taken, distance(changes), strict=True)
    }
    losses[size] = 0.0
    counts = sorted(losses)
    return Shrinking(order, Curve(np.array(counts), np.array([losses[count] for count in counts])))


def _without(network: Network, gone: UnitArray) -> NDArray[np.bool_]:
    keep = np.ones(network.units.count, np.bool_)
    keep[gone.reshape(-1)] = False
    return keep


def _narrowed(
    network: Network, group: GateGroup, moments: Mapping[str, Moments], stops: Sequence[int]
) -> tuple[UnitArray, dict[int, dict[str, Array]]]:
    """The order of units of a pair, which are all alike before they get their bases, and its constants by count."""
    pair = network.pairs[group.start]
    order = group.start + np.arange(group.count)[::-1, None]
    fits = [(network.matrix(layer), np.zeros_like(network.offset(layer))) for layer in pair.layers]
    read = [moments[layer.node] for layer in pair.layers]
    taken = {
        left: narrow(network, pair, fits, read, _without(network, order[: group.count - left]))
        for left in stops
        if stops[0] <= left < group.count
    }
    return order, taken


def _ordered(
    network: Network,
    group: GateGroup,
    moments: Mapping[str, Moments],
    scores: DoubleArray,
    effort: Effort,
    *,
    fewest: int,
    stops: Sequence[int],
) -> tuple[UnitArray, dict[int, dict[str, Array]]]:
    """The order in which units of a group go, and the constants of what reads them at some counts."""
    layers = _readers(network, group)
    parts = [(layer, _readings(network, layer, group, moments[layer.node], effort)) for layer in layers]
    readings: list[Reading] = [reading for _, several in parts for reading in several]
    inside = group.places
    wide = any(_local(network, layer, group).max(initial=-1) >= 0 for layer in network.layers if layer not in layers)
    if not readings or wide or network.unknown[inside].any():
        readings.append(FixedReading(scores[inside]))
    taken: dict[int, dict[str, Array]] = {}

    def take(left: int) -> None:
        taken[left] = {}
        for layer, several in parts:
            matrix = np.stack([reading.weight for reading in several])
            shift = np.einsum("bw,bwo->bo", moments[layer.node].mean, network.matrix(layer) - matrix)
            taken[left].update(network.with_matrix(layer, matrix, shift))

    order = removal_order(readings, group.block_numbers, fewest=fewest, share=effort.share, stops=stops, on_stop=take)
    return group.start + order, taken


def _readings(network: Network, layer: Layer, group: GateGroup, moments: Moments, effort: Effort) -> list[LayerReading]:
    second = moments.about_the_mean() if layer.offset is not None else moments.second
    matrix, units = network.matrix(layer), _local(network, layer, group)
    return [
        LayerReading.of(second[block], matrix[block], units[block], count=group.count, ridge=effort.order_ridge)
        for block in range(layer.blocks)
    ]
