"""Types of tensors as ONNX states them: read, merged, and held against what an operator demands."""

from typing import Any

import onnx
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.operators.table import Operator

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


def weight_bytes(graph: onnx_ir.Graph) -> int:
    """Bytes of the constants of a graph and the graphs inside it."""
    graphs = [graph, *graph.subgraphs()]
    values = [value for each in graphs for value in each.initializers.values()]
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)
