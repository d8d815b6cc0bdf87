"""Blocks for operators that have none of their own: the operator's sample, spliced into a network.

So a new rule and its sample are enough to put an operator into random networks; a block of its own draws more cases.
"""

from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.graph.model import from_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.operators.table import ruled_operators
from tests.graphs import weighted
from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.operators.registry import KINDS, Block, Function, Port, add, all_blocks, reduced
from tests.samples_text import load_sample


def register_missing() -> None:
    """Register a block for every operator with a rule that no block contains."""
    reached = set().union(*(each.operators for each in all_blocks()))
    for rule in ruled_operators():
        operator = f"{rule.domain}.{rule.name}" if rule.domain else rule.name
        if operator not in reached:
            add(sample_block(rule.name, rule.domain))


def sample_block(name: str, domain: str) -> Block:
    """The sample of an operator as a block."""
    sample = load_sample(name, domain=domain)
    version = next(entry.version for entry in sample.opset_import if entry.domain in ("", "ai.onnx"))
    operator = f"{domain}.{name}" if domain else name
    return Block(
        name=f"sample of {operator}",
        operators=frozenset({operator}),
        function=_spliced(sample),
        sources=KINDS,
        target="flat",
        opsets=(version, version),
        fits=lambda x: True,
        passes=True,
        steps=False,
        fixed=False,
    )


def _spliced(sample: onnx.ModelProto) -> Function:
    def apply(b: GraphBuilder, x: Port) -> Value:
        return splice(b, x, sample)

    return apply


def splice(b: GraphBuilder, x: Port, sample: onnx.ModelProto) -> Value:
    """Append a model of one input and one output, batch first, behind a layer that writes what it reads."""
    model = onnx.ModelProto()
    model.CopyFrom(sample)
    (given,) = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT, "the input of a sample that is spliced is float"
    dims[0].Clear()
    dims[0].dim_value = b.batch
    shape = [dim.dim_value for dim in dims]
    values = {given.name: _written(b, x, shape[1:])}
    shapes = infer(from_proto(model))
    for tensor in model.graph.initializer:
        values[tensor.name] = b.initializer(numpy_helper.to_array(tensor), tensor.name)
    for node in model.graph.node:
        results: list[tuple[tuple[int, ...], int] | None] = []
        for result in node.output:
            known, dtype = shapes.shape(result), shapes.dtype(result)
            assert not result or (known is not None and dtype is not None), f"{node.op_type} {result}: shape unknown"
            results.append((known, dtype.value) if result and known is not None and dtype is not None else None)
        made = b.stated(
            node.op_type,
            [values[operand] if operand else None for operand in node.input],
            results,
            domain=node.domain,
            attributes={item.name: helper.get_attribute_value(item) for item in node.attribute},
        )
        values.update(zip([result for result in node.output if result], made, strict=True))
    result = values[model.graph.output[0].name]
    assert result.shape[0] == b.batch, "the result of a sample that is spliced has its batch first"
    return b.one("Flatten", [result], {"axis": 1})


def _written(b: GraphBuilder, x: Port, shape: list[int]) -> Value:
    """A layer that writes ``[N, *shape]``, out of numbers between -1 and 1."""
    if x.kind == "sequence":
        x = Port(*_fields(b.one("Transpose", [x], {"perm": [1, 0, 2]})), kind="tokens")
    axes = [axis for axis in range(1, x.rank) if axis != x.axis]
    flat = reduced(b, "ReduceMean", x, axes, keep=False) if axes else x
    features = weighted.matmul(b, b.one("Tanh", [flat]), prod(shape))
    return b.one("Reshape", [features, b.initializer(np.array([-1, *shape], np.int64), "sample_shape")])


def _fields(value: Value) -> tuple[str, tuple[int, ...], int]:
    return value.name, value.shape, value.dtype
