"""Vectors of equal elements that several layers read: exporters store equal tensors once, be they related or not."""

import onnx_ir
from onnx_ir.convenience import replace_all_uses_with

from onnxadmm.graph.constants import FLOATS, constant, new_initializer, value_names
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.unread import drop_unread
from onnxadmm.operators.table import find

_LARGEST_VECTOR = 2**16  # elements
_MARK = "onnxadmm.copy"  # in ``meta``, which no file holds, of vectors that ``merge_shared`` may take back


def write_out_shared(model: Model) -> Model:
    """Return a copy in which layers with other weights read their own zeros and ones; the model itself if all do.

    A bias of zeros, or the scale of a normalisation without one, would tie the channels of layers that have nothing
    else in common. Layers that share a weight go on sharing what stands beside it.
    """
    if not any(_readers(value) for value in model.ir.graph.initializers.values()):
        return model
    result = clone(model)
    taken = value_names(result)
    for value in list(result.ir.graph.initializers.values()):
        readers = _readers(value)
        if not readers:
            continue
        array = constant(value)
        assert array is not None  # it has been looked at
        for uses in list(readers.values())[1:]:
            copy = new_initializer(result, value.name or "", array, taken=taken)
            value.meta[_MARK] = copy.meta[_MARK] = value.name
            for node, index in uses:
                node.replace_input_with(index, copy)
    return result


def merge_shared(model: Model) -> None:
    """Take copies back, in place, that are still what they were copied from."""
    seen: dict[object, onnx_ir.Value] = {}
    for value in list(model.ir.graph.initializers.values()):
        if value.meta.get(_MARK) is None or value.const_value is None:
            continue
        # Training may have changed one and not the other.
        first = seen.setdefault((value.meta[_MARK], value.const_value.tobytes()), value)
        if first is value:
            continue
        replace_all_uses_with(value, first)
        drop_unread(model, [value])


def _readers(value: onnx_ir.Value) -> dict[object, list[tuple[onnx_ir.Node, int]]]:
    """Return the uses of a vector of equal elements by what stands beside it; nothing when that is one thing."""
    uses = [(use.node, use.idx) for use in value.uses()]
    if len(uses) < 2 or value.is_graph_output() or value.const_value is None or value.dtype not in FLOATS:
        return {}
    if len(value.const_value.shape) != 1 or not 1 < value.const_value.size <= _LARGEST_VECTOR:
        return {}
    if not all(node.graph is value.graph and _is_vector(node, index) for node, index in uses):
        return {}
    array = value.const_value.numpy()
    if not (array == array[0]).all():
        return {}
    found: dict[object, list[tuple[onnx_ir.Node, int]]] = {}
    for node, index in uses:
        found.setdefault(_beside(node, index), []).append((node, index))
    return found if len(found) > 1 else {}


def _is_vector(node: onnx_ir.Node, index: int) -> bool:
    """Whether an operand is a vector beside a weight or an activation, or on its way there; else nobody knows."""
    operator = find(node.domain, node.op_type)
    if operator.moves in ("view", "order", "pick"):
        return index < operator.data_count(len(node.inputs))
    return operator.scales or index in (*operator.vectors, *operator.statistics)


def _beside(node: onnx_ir.Node, index: int) -> object:
    """Return what tells one use of a vector from another: the weight of its layer, else the node itself."""
    while node.op_type == "Identity" and len(following := tuple(node.outputs[0].uses())) == 1:
        node, index = following[0].node, following[0].idx
    operator = find(node.domain, node.op_type)
    if operator.is_layer:
        return _origin(node.inputs[1])
    if operator.scales:
        other = node.inputs[1 - index]
        layer = None if other is None else other.producer()
        if layer is not None and find(layer.domain, layer.op_type).is_layer:
            return _origin(layer.inputs[1])
    if operator.statistics:
        return tuple(_origin(operand) for operand in node.inputs[1:])
    return node.name or id(node)


def _origin(value: onnx_ir.Value | None) -> object:
    """Return the name of a weight, seen through Identity and Transpose."""
    while value is not None and (node := value.producer()) is not None and node.op_type in ("Identity", "Transpose"):
        value = node.inputs[0]
    return None if value is None else value.name
