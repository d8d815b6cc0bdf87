"""Which inputs of a training copy hold one entry per sample, on axis 0."""

import onnx

from onnxadmm.graph.fed import batched_names, stated_batch


def fed_values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be fed: all but the initializers that old files list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def batched_inputs(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the inputs with a batch on axis 0, see ``batched_names``."""
    return batched_names({value.name: _shape(value) for value in fed_values(graph)})


def batch_length(graph: onnx.GraphProto) -> int | None:
    """The batch size that the inputs state; None where it is open."""
    return stated_batch({value.name: _shape(value) for value in fed_values(graph)})


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
