"""Shapes behind a Loop, which onnx leaves open: they are those before it where the body keeps them."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper, shape_inference


def loop_types(
    node: onnx.NodeProto,
    types: Mapping[str, onnx.TypeProto],
    opsets: Sequence[onnx.OperatorSetIdProto],
    *,
    ir_version: int,
) -> dict[str, onnx.TypeProto]:
    """Return the types of the values that a Loop carries along, by the names of its results.

    Args:
        node: the Loop.
        types: of everything in its scope; lengths are numbers, or missing.
        opsets: operator sets of the model.
        ir_version: of the model.

    Returns:
        nothing when some carried value has another shape behind the body than before it: then no step is like the
        first. Results that gather one slice per step are left out: their length is not known.
    """
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    carried = [types.get(name) for name in node.input[2:]]
    if not carried or any(given is None or not given.tensor_type.HasField("shape") for given in carried):
        return {}
    step = [helper.make_tensor_type_proto(TensorProto.INT64, ()), helper.make_tensor_type_proto(TensorProto.BOOL, ())]
    graph = onnx.GraphProto()
    graph.CopyFrom(body)
    del graph.input[:], graph.output[:]
    inner = {value.name for value in body.input}
    for value, given in zip(body.input, [*step, *carried], strict=True):
        graph.input.append(onnx.ValueInfoProto(name=value.name, type=given))
    for name, given in types.items():
        if name not in inner and given.HasField("tensor_type"):
            graph.input.append(onnx.ValueInfoProto(name=name, type=given))
    for value in body.output:
        graph.output.append(onnx.ValueInfoProto(name=value.name))
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=ir_version)
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph.output
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    behind = [value.type for value in inferred[1 : 1 + len(carried)]]
    if any(_lengths(before) != _lengths(after) for before, after in zip(carried, behind, strict=True)):
        return {}
    return {name: given for name, given in zip(node.output, carried, strict=False) if name and given is not None}


def _lengths(given: onnx.TypeProto | None) -> tuple[int, ...] | None:
    if given is None or not given.tensor_type.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in given.tensor_type.shape.dim)
