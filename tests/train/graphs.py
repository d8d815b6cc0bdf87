"""Small graphs and a finite-difference oracle for the tests of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Mapping[str, Array],
    opset: int = 17,
    ir_version: int = 8,
    microsoft: bool = False,
) -> onnx.ModelProto:
    """A float32 model of some nodes."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if microsoft:
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def random(shape: Sequence[int], *, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(seed).standard_normal(tuple(shape))).astype(np.float32)


def mlp(*, inputs: int = 6, hidden: int = 5, outputs: int = 4, batch: int | str = "N") -> onnx.ModelProto:
    """Gemm, Tanh, Gemm: smooth everywhere."""
    return model_of(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1, name="first"),
            helper.make_node("Tanh", ["h"], ["a"], name="bend"),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["logits"], transB=1, name="second"),
        ],
        inputs={"x": [batch, inputs]},
        outputs=["logits"],
        weights={
            "w1": random([hidden, inputs], seed=1, scale=0.5),
            "b1": random([hidden], seed=2, scale=0.1),
            "w2": random([outputs, hidden], seed=3, scale=0.5),
            "b2": random([outputs], seed=4, scale=0.1),
        },
    )


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float64, for the reference evaluator; Constant nodes become initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = [node for node in copy.graph.node if node.op_type == "Constant"]
    for node in constants:
        copy.graph.initializer.append(numpy_helper.from_array(_constant_of(node), node.output[0]))
        copy.graph.node.remove(node)
    tensors = {tensor.name for tensor in copy.graph.initializer}
    inputs = [value for value in copy.graph.input if value.name not in tensors]
    del copy.graph.input[:], copy.graph.value_info[:]
    copy.graph.input.extend(inputs)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in list(copy.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return copy


def _constant_of(node: onnx.NodeProto) -> Array:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    return np.array(value, np.float32 if "float" in attribute.name else np.int64)


class DoubleGraph:
    """The user's own graph in float64 on ONNX's reference implementation: shares nothing with the engine."""

    def __init__(self, model: onnx.ModelProto) -> None:
        copy = in_double(model)
        self.weights = {
            tensor.name: numpy_helper.to_array(tensor).copy()
            for tensor in copy.graph.initializer
            if tensor.data_type == TensorProto.DOUBLE
        }
        for name, array in self.weights.items():
            copy.graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, array.shape))
        kept = [tensor for tensor in copy.graph.initializer if tensor.name not in self.weights]
        del copy.graph.initializer[:]
        copy.graph.initializer.extend(kept)
        self._evaluator = ReferenceEvaluator(copy)

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float64]:
        feeds = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in inputs.items()}
        results = self._evaluator.run(None, {**feeds, **self.weights})
        return np.asarray(results[0], np.float64)  # type: ignore[index]  # a list, one entry per output
