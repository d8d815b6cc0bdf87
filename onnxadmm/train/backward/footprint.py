"""How much memory training takes, estimated from the training graph before anything is run."""

from collections.abc import Iterable

import onnx

from onnxadmm.operators.table import find
from onnxadmm.train.prepare.nodes import reads


def peak_bytes(graph: onnx.GraphProto) -> int:
    """Most bytes that the values of a graph take at one time, when its nodes run in their order.

    A value lives from the node that makes it to the last that reads it; outputs live on, inputs and initializers are
    counted throughout. Scratch memory of single operators is not counted. A value whose shape is recorded nowhere is
    as large as a view of it whose shape is, or else as the largest one its node reads.

    Args:
        graph: with known shapes for (nearly) all values.
    """
    sizes = {tensor.name: _bytes(tensor.data_type, tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
            sizes[value.name] = _bytes(tensor.elem_type, (dimension.dim_value for dimension in tensor.shape.dim))
    recorded = set(sizes)
    root: dict[str, str] = {}  # whose memory a view is
    last: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in reads(node):
            last[root.get(name, name)] = index
        for position, name in enumerate(node.output):
            if not position and find(node.domain, node.op_type).moves == "view":
                root[name] = whole = root.get(node.input[0], node.input[0])
                if name in recorded and whole not in recorded:
                    sizes[whole] = sizes[name]
            sizes.setdefault(name, max((sizes.get(read, 0) for read in reads(node)), default=0))
    for value in graph.output:
        last[root.get(value.name, value.name)] = len(graph.node)
    ends: dict[int, list[str]] = {}
    for name, index in last.items():
        ends.setdefault(index, []).append(name)
    held = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    live = sum(sizes.get(name, 0) for name in held)
    peak = live
    for index, node in enumerate(graph.node):
        live += sum(sizes[name] for name in node.output if name and name not in root and name in last)
        peak = max(peak, live)
        live -= sum(sizes.get(name, 0) for name in ends.get(index, ()) if name not in held)
    return peak


def _bytes(kind: int, shape: Iterable[int]) -> int:
    size = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if kind else 0
    for length in shape:
        size *= length
    return int(size)
