"""Lengths that are no lengths: exporters that write -1, or 0, for what is free."""

from collections.abc import Iterable, Iterator

import onnx

# What reads nothing is fed on purpose to these: a cache before its first step, a region of interest that is not used.
_TAKES_NOTHING = frozenset({"Concat", "Resize", "Shape", "Size", "Loop", "Scan", "If"})


def free_unsized(proto: onnx.ModelProto) -> None:
    """Make lengths free, in place, that can only mean that: what ONNX writes as an absent length.

    Negative ones do so anywhere. So does 0 in an input, unless it only goes where an empty tensor makes sense; where an
    exporter writes it in inputs, it does so everywhere.
    """
    graph = proto.graph
    initializers = {tensor.name for tensor in graph.initializer}
    fed = {value.name: value for value in graph.input if value.name not in initializers}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    lowest = 0
    for value in fed.values():
        empty = any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in _dims(value))
        if empty and not readers.get(value.name, set()) <= _TAKES_NOTHING:
            lowest = 1
            _free(value, below=1)
    for each in _graphs(graph):
        for value in (*each.input, *each.output, *each.value_info):
            is_fed = each is graph and value.name in fed
            _free(value, below=0 if is_fed else lowest)


def _free(value: onnx.ValueInfoProto, *, below: int) -> None:
    for dim in _dims(value):
        if dim.HasField("dim_value") and dim.dim_value < below:
            dim.ClearField("dim_value")


def _dims(value: onnx.ValueInfoProto) -> Iterable[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ()


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)
