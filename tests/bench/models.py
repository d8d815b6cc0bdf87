"""Small models for the tests of this room, as ONNX text or built by hand."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from onnxadmm.graph.model import Model, from_proto


def from_text(text: str) -> Model:
    """A model from ONNX text, which must bring its own header."""
    return from_proto(parser.parse_model(text))


def relu(*, batch: str = "N", ir_version: int = 9, opset: int = 17) -> Model:
    """y = Relu(x) on ``[batch, 4]``."""
    return from_text(
        f'<ir_version: {ir_version}, opset_import: ["": {opset}]>'
        f"g (float[{batch}, 4] x) => (float[{batch}, 4] y) {{ y = Relu(x) }}"
    )


def dense(width: int, *, inner: int | None = None, layers: int = 2, batch: str | int = "N", seed: int = 0) -> Model:
    """A chain of MatMuls on ``[batch, width]``: ``width`` features at both ends, ``inner`` between layers."""
    generator = np.random.default_rng(seed)
    widths = [width, *[inner or width] * (layers - 1), width]
    nodes, weights = [], []
    for layer in range(layers):
        shape = (widths[layer], widths[layer + 1])
        weight = generator.standard_normal(shape) / np.sqrt(shape[0])
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"))
        source, target = ("x" if layer == 0 else f"h{layer}"), ("y" if layer == layers - 1 else f"h{layer + 1}")
        nodes.append(helper.make_node("MatMul", [source, f"w{layer}"], [target]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        weights,
    )
    return from_proto(stamped(graph))


def stamped(graph: onnx.GraphProto, *, opset: int = 17) -> onnx.ModelProto:
    """A model message that every supported onnxruntime reads."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
