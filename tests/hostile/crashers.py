"""Models that ONNX's checker takes and on which onnxruntime ends the process, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
_RANDOM = np.random.default_rng(0)


def _weight(*shape: int) -> Array:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    *,
    shape: Sequence[int | str] = ("N", 4, 8, 8),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A network of input x and output y, of free shape."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(len(shape))])
    graph = helper.make_graph(
        nodes,
        "crasher",
        [helper.make_tensor_value_info("x", kind, shape)],
        [output],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _behind_convolutions(operator: onnx.NodeProto, *, opset: int = 17, **weights: Array) -> onnx.ModelProto:
    """Two convolutions with units between them, and an operator on what they compute."""
    nodes = [
        helper.make_node("Conv", ["x", "W1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "W2"], ["b"], pads=[1, 1, 1, 1]),
        operator,
    ]
    own = {"W1": _weight(6, 4, 3, 3), "W2": _weight(4, 6, 3, 3), **weights}
    return _model(nodes, own, opset=opset)


def _integers(operator: str, divisor: int, dividend: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "zero"], ["z"]),
        helper.make_node("Add", ["z", "dividend"], ["a"]),
        helper.make_node("Add", ["z", "divisor"], ["b"]),
        helper.make_node(operator, ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c"], ["t"], keepdims=0),
        helper.make_node("Conv", ["x", "W1"], ["h"]),
        helper.make_node("Conv", ["h", "W2"], ["i"]),
        helper.make_node("Add", ["i", "t"], ["y"]),
    ]
    numbers = {"zero": 0, "dividend": dividend, "divisor": divisor}
    constants: dict[str, Array] = {name: np.array([number], np.int64) for name, number in numbers.items()}
    return _model(nodes, {**constants, "W1": _weight(6, 4, 3, 3), "W2": _weight(4, 6, 3, 3)})


def conv_strides_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("Conv", ["b", "W3"], ["y"], strides=[0, 0]), W3=_weight(4, 4, 3, 3))


def conv_group_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("Conv", ["b", "W3"], ["y"], group=0), W3=_weight(4, 4, 3, 3))


def conv_transpose_group_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("ConvTranspose", ["b", "W3"], ["y"], group=0), W3=_weight(4, 4, 3, 3))


def conv_transpose_of_huge_groups() -> onnx.ModelProto:
    node = helper.make_node("ConvTranspose", ["b", "W3"], ["y"], group=2**62)
    return _behind_convolutions(node, W3=_weight(4, 4, 3, 3))


def conv_of_more_axes_than_its_data() -> onnx.ModelProto:
    """Inference in onnxruntime runs past the end of a list, already while the model is opened."""
    return _behind_convolutions(helper.make_node("Conv", ["b", "W3"], ["y"]), W3=_weight(4, 4, 3, 3, 3))


def split_into_more_than_it_says() -> onnx.ModelProto:
    """As above, in onnxruntime and in onnx itself."""
    node = helper.make_node("Split", ["b"], ["y", "z", "q"], axis=1, num_outputs=2)
    return _behind_convolutions(node, opset=20)


def max_pool_strides_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=[2, 2], strides=[0, 0]))


def average_pool_strides_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("AveragePool", ["b"], ["y"], kernel_shape=[2, 2], strides=[0, 0]))


def division_by_0() -> onnx.ModelProto:
    return _integers("Div", 0, 7)


def division_of_the_least_integer() -> onnx.ModelProto:
    return _integers("Div", -1, -(2**63))


def modulo_0() -> onnx.ModelProto:
    return _integers("Mod", 0, 7)


def max_unpool_with_junk_indices() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["b"], ["i"], to=TensorProto.INT64),
        helper.make_node("Mul", ["i", "none"], ["n"]),
        helper.make_node("Add", ["n", "huge"], ["j"]),
        helper.make_node("MaxUnpool", ["b", "j"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = _behind_convolutions(nodes[0], none=np.array(0, np.int64), huge=np.array(10**9, np.int64))
    model.graph.node.extend(nodes[1:])
    return model


def roi_align_with_junk_indices() -> onnx.ModelProto:
    node = helper.make_node("RoiAlign", ["b", "rois", "batch"], ["y"], output_height=2, output_width=2)
    rois = np.array([[0, 0, 4, 4]], np.float32)
    return _behind_convolutions(node, rois=rois, batch=np.array([10**9], np.int64))


def embedding_with_junk_ids() -> onnx.ModelProto:
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization",
            ["ids", "", "words", "places", "", "gamma", "beta"],
            ["e", "m"],
            domain="com.microsoft",
        ),
        helper.make_node("MatMul", ["e", "W1"], ["h"]),
        helper.make_node("MatMul", ["h", "W2"], ["i"]),
        helper.make_node("Add", ["i", "x"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "ids": np.array([[10**9, -(10**9)]], np.int32),
        "words": _weight(10, 8),
        "places": _weight(4, 8),
        "gamma": _weight(8),
        "beta": _weight(8),
        "W1": _weight(8, 6),
        "W2": _weight(6, 8),
    }
    return _model(nodes, weights, shape=("N", 2, 8))


def lstm_with_a_lying_hidden_size() -> onnx.ModelProto:
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["h"], hidden_size=2**30),
        helper.make_node("Squeeze", ["h", "one"], ["y"]),
    ]
    weights: dict[str, Array] = {"W": _weight(1, 16, 5), "R": _weight(1, 16, 4), "one": np.array([1], np.int64)}
    return _model(nodes, weights, shape=(3, "N", 5))


def group_normalization_of_0_groups() -> onnx.ModelProto:
    node = helper.make_node("GroupNormalization", ["b", "scale", "bias"], ["y"], num_groups=0)
    return _behind_convolutions(node, opset=21, scale=_weight(4), bias=_weight(4))


def depth_to_space_of_blocks_of_0() -> onnx.ModelProto:
    return _behind_convolutions(helper.make_node("DepthToSpace", ["b"], ["y"], blocksize=0))


CRASHERS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (
        conv_strides_0,
        conv_group_0,
        conv_transpose_group_0,
        conv_transpose_of_huge_groups,
        conv_of_more_axes_than_its_data,
        split_into_more_than_it_says,
        max_pool_strides_0,
        average_pool_strides_0,
        division_by_0,
        division_of_the_least_integer,
        modulo_0,
        max_unpool_with_junk_indices,
        roi_align_with_junk_indices,
        embedding_with_junk_ids,
        lstm_with_a_lying_hidden_size,
        group_normalization_of_0_groups,
        depth_to_space_of_blocks_of_0,
    )
}
