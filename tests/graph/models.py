"""Small models that several tests of the graph room use."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def random_weight(*shape: int, seed: int = 0, zeros: float = 0.0) -> NDArray[np.float32]:
    """Normal numbers, of which the share ``zeros`` is zero."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal(shape).astype(np.float32)
    weight[generator.random(shape) < zeros] = 0
    return weight


def small_network(*, opset: int = 17, ir_version: int = 8, listed: bool = False, zeros: float = 0.0) -> onnx.ModelProto:
    """Conv, Flatten, Gemm, MatMul, with weights large enough to be mapped; ``x`` [N,3,8,8] to ``y`` [N,12]."""
    weights = {
        "conv.weight": random_weight(16, 3, 3, 3, seed=1, zeros=zeros),
        "conv.bias": random_weight(16, seed=2),
        "gemm.weight": random_weight(20, 16 * 6 * 6, seed=3, zeros=zeros),
        "gemm.bias": random_weight(20, seed=4),
        "matmul.weight": random_weight(20, 12, seed=5, zeros=zeros),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], name="relu", doc_string="keeps what is positive"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "gemm.weight", "gemm.bias"], ["g"], name="gemm", transB=1),
        helper.make_node("MatMul", ["g", "matmul.weight"], ["y"], name="matmul"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    if listed:
        inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, w.shape) for n, w in weights.items()]
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
        doc_string="a graph",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    model.doc_string = "a model"
    model.producer_name = "tests"
    model.metadata_props.add(key="author", value="nobody")
    return model


def weights_of(proto: onnx.ModelProto) -> dict[str, bytes]:
    """Bytes of every initializer, read by ``onnx`` itself."""
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in proto.graph.initializer}
