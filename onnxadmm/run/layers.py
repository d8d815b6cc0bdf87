"""Layer by layer what a run has changed, and what the connections it pruned had weighed."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.bench.inputs import required_inputs
from onnxadmm.bench.profile import NodeTimes, Profile, node_name
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model
from onnxadmm.report.layers import ConnectionsLine, LayerLine, TensorLine, WeightLine
from onnxadmm.rewrite.shrink import cut
from onnxadmm.units.cost import costs_by_name
from onnxadmm.units.units import Units

#: Sizes of connections, in root mean squares of their tensor; what is larger is counted in the last bin.
_EDGES: Final = tuple(float(edge) for edge in np.round(np.linspace(0, 3, 31), 6))


def layer_lines(
    analysed: Model,
    units: Units,
    keep: NDArray[np.bool_],
    result: Model,
    result_units: Units,
    profile: Profile | None,
) -> tuple[LayerLine, ...]:
    """Compare the nodes that compute or hold weights, in the order of the graph.

    Args:
        analysed: the model whose units were found.
        units, keep: its units, and which of them stayed: bool ``[units.count]``.
        result: the model as written.
        result_units: its own units.
        profile: of the analysed model and of the result.
    """
    before, after = _costs(analysed, units), _costs(result, result_units)
    times = (NodeTimes({}, 0.0),) * 2 if profile is None else profile.models
    groups = dict(_groups(units, keep))
    lines = []
    for node in analysed.ir.graph:
        name = node_name(node)
        if name not in before:
            continue
        group, units_before, units_after = groups.get(name, (None, None, None))
        macs_after, parameters_after = after.get(name, (None, None))
        lines.append(
            LayerLine(
                name=name,
                operator=node.op_type,
                group=group,
                units_before=units_before,
                units_after=units_after,
                parameters_before=before[name][1],
                parameters_after=parameters_after,
                macs_before=before[name][0],
                macs_after=macs_after,
                ms_before=times[0].by_node.get(name),
                ms_after=times[1].by_node.get(name),
            )
        )
    return tuple(lines)


def computing_nodes(units: Units) -> frozenset[str]:
    """Names of the nodes of a model that multiply and accumulate: those whose times are told."""
    return frozenset(costs_by_name(units, "macs"))


def connections_line(
    analysed: Model, units: Units, keep: NDArray[np.bool_], zeros: Mapping[str, NDArray[np.bool_]]
) -> ConnectionsLine | None:
    """Count by their size in the original the connections that were pruned, and those that stayed.

    Args:
        analysed: the model before it was trained.
        units, keep: its units, and which of them stayed: bool ``[units.count]``.
        zeros: pruned connections by weight, bool of its whole shape.

    Returns:
        The counts; None where connections were left alone.
    """
    values = constants_by_name(analysed)
    weights: list[WeightLine] = []
    kept, pruned = (np.zeros(len(_EDGES) - 1, dtype=np.int64) for _ in range(2))
    for name, value in values.items():
        array = constant(value) if name in zeros else None
        if array is None:
            continue
        positions = units.positions(name, keep)
        gone = zeros[name] if positions is None else cut(zeros[name], positions)
        array = array if positions is None else cut(array, positions)
        scale = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
        sizes = np.minimum(np.abs(array).astype(np.float64) / (scale or 1.0), _EDGES[-1])
        pruned += np.histogram(sizes[gone], bins=_EDGES)[0]
        kept += np.histogram(sizes[~gone], bins=_EDGES)[0]
        weights.append(WeightLine(name, kept=int((~gone).sum()), pruned=int(gone.sum())))
    if not weights:
        return None
    return ConnectionsLine(_EDGES, tuple(kept.tolist()), tuple(pruned.tolist()), tuple(weights))


def tensor_lines(model: Model) -> tuple[tuple[TensorLine, ...], tuple[TensorLine, ...]]:
    """What a model must be fed, and what it gives."""
    return tuple(map(_tensor, required_inputs(model))), tuple(map(_tensor, model.ir.graph.outputs))


def _tensor(value: onnx_ir.Value) -> TensorLine:
    shape: tuple[Any, ...] = () if value.shape is None else tuple(value.shape)
    lengths = tuple(length if isinstance(length, int) else str(length.value or "?") for length in shape)
    dtype = "" if value.dtype is None else str(np.dtype(value.dtype.numpy())).replace("object", "string")
    return TensorLine(value.name or "", dtype, lengths)


def _costs(model: Model, units: Units) -> dict[str, tuple[int, int]]:
    """Multiply-accumulates and parameters of the whole model by the name of the node."""
    macs, stored = costs_by_name(units, "macs"), costs_by_name(units, "params")
    parameters: dict[str, float] = {}
    values = {value.name: value for graph in model.ir.graphs() for value in _constants(graph)}
    for name, count in stored.items():
        owner = _owner(values[name], macs) if name in values else None
        if owner is not None:
            parameters[owner] = parameters.get(owner, 0.0) + count
    return {name: (round(macs.get(name, 0)), round(parameters.get(name, 0))) for name in {**macs, **parameters}}


def _constants(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    yield from graph.initializers.values()
    yield from (node.outputs[0] for node in graph if node.op_type == "Constant")


def _owner(value: onnx_ir.Value, macs: Mapping[str, float]) -> str | None:
    """The node that a constant belongs to: a reader that multiplies, also behind what computes with constants alone."""
    readers = [node for node, _ in value.uses()]
    for node in readers:
        if node_name(node) in macs:
            return node_name(node)
    for node in readers:
        if all(each is None or each is value or constant(each) is not None for each in node.inputs):
            found = _owner(node.outputs[0], macs)
            if found is not None:
                return found
    return node_name(readers[0]) if readers else None


def _groups(units: Units, keep: NDArray[np.bool_]) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """By layer the group that it writes, with its units before and after; free groups over locked ones."""
    gone = units.followers.gone(keep)
    for lock in units.locked:
        left = lock.count - gone.get(lock.name, 0)
        yield from ((layer, (lock.name, lock.count, left)) for layer in lock.layers)
    for group in units.groups:
        left = int(keep[group.places].sum())
        yield from ((layer, (group.name, group.count, left)) for layer in group.layers)
