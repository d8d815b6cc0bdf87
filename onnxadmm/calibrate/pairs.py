"""Query and key: two layers whose outputs meet in a product that sums over units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir

from onnxadmm.admm.problem import UnitArray
from onnxadmm.calibrate.layers import Layer
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.gates import node_of
from onnxadmm.units.units import Gate, Group, Units

#: Operators that move what a layer puts out, every unit alike.
_MOVING: Final = frozenset(("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


@dataclass(frozen=True)
class Pair:
    """Two layers of one block whose outputs are multiplied with each other, and read by nothing else.

    Attributes:
        layers: both, in the order of the graph; what they read is computed before the first of them.
        units: for each of them the unit of each output, every unit of the group once: int64 ``[outputs]``.
    """

    layers: tuple[Layer, Layer]
    units: tuple[UnitArray, UnitArray]


def find_pairs(model: Model, units: Units, layers: Sequence[Layer]) -> Mapping[int, Pair]:
    """Return the pairs whose inner size is a group, by the first unit of the group.

    Between a layer and the product may stand its offset, factors that are the same for all units, and what moves units
    as a whole. Where heads are units there is no such group: every head would have to keep as many as the others.
    """
    found = {}
    for gate in units.gates:
        group = _group_of(gate, units)
        pair = None if group is None else _pair(model, units, layers, gate, group)
        if group is not None and pair is not None:
            found[group.start] = pair
    return found


def _group_of(gate: Gate, units: Units) -> Group | None:
    """The group whose units a gate reads, each of them once, and that nothing else reads."""
    read = np.sort(gate.reader.units.reshape(-1))
    for group in units.groups:
        if group.blocks is None and np.array_equal(read, group.numbers):
            readers = [*units.readers, *(other.reader for other in units.gates if other is not gate)]
            return None if any(np.isin(reader.units, read).any() for reader in readers) else group
    return None


def _pair(model: Model, units: Units, layers: Sequence[Layer], gate: Gate, group: Group) -> Pair | None:
    node = node_of(model, gate)
    if node is None or node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return None
    made = {layer.node: layer for layer in layers}
    sources = [_source(value, made) for value in node.inputs if value is not None]
    known = [layer for layer in sources if layer is not None]
    if len(known) != 2 or known[0] is known[1]:
        return None
    first, second = sorted(known, key=lambda layer: layer.index)
    places = {value.name: index for index, node in enumerate(model.ir.graph) for value in node.outputs}
    columns = _columns(units, first, group), _columns(units, second, group)
    tensors = {layer.weight for layer in known} | {layer.offset.tensor for layer in known if layer.offset is not None}
    if columns[0] is None or columns[1] is None or set(group.tensors) != tensors:
        return None
    if places.get(second.data, -1) >= first.index:
        return None
    return Pair((first, second), (columns[0], columns[1]))


def _source(value: onnx_ir.Value, made: Mapping[str, Layer]) -> Layer | None:
    """The layer whose outputs, each multiplied by the same and perhaps moved, are an operand of the product."""
    added: set[str] = set()
    while True:
        node = value.producer()
        if node is None or value.is_graph_output() or len(tuple(value.uses())) != 1:
            return None
        layer = made.get(value.name or "")
        if layer is not None:
            inside = {each.name for each in node.inputs if each is not None}
            offset = set() if layer.offset is None else {layer.offset.tensor}
            return layer if layer.blocks == 1 and added | (offset & inside) == offset else None
        passed = _passed(node, added)
        if passed is None:
            return None
        value = passed


def _passed(node: onnx_ir.Node, added: set[str]) -> onnx_ir.Value | None:
    """The operand that a node passes on, None where it does more than it may; what it adds goes into ``added``."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _MOVING:
        return node.inputs[0]
    data = [value for value in node.inputs if value is not None and constant(value) is None]
    if len(data) != 1:
        return None
    fixed = [value for value in node.inputs if value is not None and value is not data[0]]
    if node.op_type == "Add":
        added.update(value.name or "" for value in fixed)
        return data[0]
    scales = node.op_type == "Mul" or (node.op_type == "Div" and node.inputs[0] is data[0])
    sizes = [array.size for array in map(constant, fixed) if array is not None]
    return data[0] if scales and sizes == [1] else None


def _columns(units: Units, layer: Layer, group: Group) -> UnitArray | None:
    """The unit of each output of a layer; None where they are not those of the group, each once."""
    axes = [axis for axis in units.axes.get(layer.node, ()) if axis is not None]
    if len(axes) != 1 or axes[0].ndim != 1:
        return None
    return axes[0] if np.array_equal(np.sort(axes[0]), group.numbers) else None
