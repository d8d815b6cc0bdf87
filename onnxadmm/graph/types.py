"""Types of tensors as ONNX states them: read, merged, and held against what an operator demands."""

from collections.abc import Mapping
from math import prod
from typing import Any

import onnx
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.operators.nodes import attribute
from onnxadmm.operators.table import Operator, find

Array = NDArray[Any]


def standard_twin(operator: Operator, node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node of the default domain whose result has the same shape; activations behind it have none."""
    assert operator.shaped_like is not None  # the caller has looked
    name, operands = operator.shaped_like
    twin = onnx.helper.make_node(
        name, [node.input[index] for index in operands if index < len(node.input)], node.output
    )
    twin.attribute.extend(attribute for attribute in node.attribute if not attribute.name.startswith("activation"))
    return twin


def known_lengths(given: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """All lengths of a tensor type, None when one is unknown."""
    if given is None or not given.HasField("tensor_type") or not given.tensor_type.HasField("shape"):
        return None
    dims = given.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(int(dim.dim_value) for dim in dims)


def type_of_array(array: Array) -> onnx.TypeProto:
    """Type and shape of an array."""
    return onnx.helper.make_tensor_type_proto(onnx_ir.DataType.from_numpy(array.dtype).value, array.shape)


def merge_types(inferred: onnx.TypeProto | None, stated: onnx.TypeProto | None) -> onnx.TypeProto | None:
    """What inference found; what the file states fills in lengths that it left open."""
    if inferred is None or not inferred.WhichOneof("value"):
        return stated
    if stated is None or not inferred.HasField("tensor_type") or not stated.tensor_type.HasField("shape"):
        return inferred
    if not inferred.tensor_type.HasField("shape"):
        inferred.tensor_type.shape.CopyFrom(stated.tensor_type.shape)
    elif len(inferred.tensor_type.shape.dim) == len(stated.tensor_type.shape.dim):
        for dim, other in zip(inferred.tensor_type.shape.dim, stated.tensor_type.shape.dim, strict=True):
            if not dim.HasField("dim_value") and other.HasField("dim_value"):
                dim.dim_value = other.dim_value
    return inferred


def is_plausible(
    proto: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], results: Mapping[str, onnx.TypeProto]
) -> bool:
    """Whether the lengths fit together, as far as ONNX's inference does not look at that itself."""
    if proto.domain not in ("", "ai.onnx"):
        return True
    given = [known_lengths(types[name]) if name else None for name in proto.input]
    outputs = [known_lengths(result) or () for result in results.values()]
    if any(length < 0 for lengths in outputs for length in lengths):
        return False
    windowed = find("", proto.op_type).windowed
    if windowed and given[0] is not None and 0 not in given[0] and any(0 in out for out in outputs):
        return False
    if proto.op_type == "Reshape" and given[0] is not None and proto.output[0] in results:
        target = known_lengths(results[proto.output[0]])
        return target is None or prod(target) == prod(given[0])
    if len(given) < 2 or given[0] is None or given[1] is None:
        return True
    if proto.op_type == "Conv":
        return bool(given[0][1] == given[1][1] * attribute(proto, "group", 1))
    if proto.op_type == "Gemm":
        inner = given[0][0 if attribute(proto, "transA", 0) else 1]
        return bool(inner == given[1][1 if attribute(proto, "transB", 0) else 0])
    return True


def weight_bytes(graph: onnx_ir.Graph) -> int:
    """Bytes of the constants of a graph and the graphs inside it."""
    graphs = [graph, *graph.subgraphs()]
    values = [value for each in graphs for value in each.initializers.values()]
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)
