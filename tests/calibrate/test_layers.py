"""Rows of a layer times its matrix are what the layer puts out; nothing else says what a row is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.calibrate.layers import Layer, find_layers
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.runtime import open_session
from tests.calibrate.networks import network

Array = NDArray[Any]
ALL = 10**9


def _only(model: Model) -> tuple[Layer, Array]:
    (layer,) = find_layers(model)
    weight = constant(constants_by_name(model)[layer.weight])
    assert weight is not None
    return layer, weight


def _product(layer: Layer, weight: Array, data: Array) -> Array:
    """Rows times matrix, ``[rows, outputs]`` with the outputs of all blocks side by side."""
    rows = layer.rows(data, ALL, np.random.default_rng(0))
    product = rows @ layer.matrix(weight)  # [blocks, rows, outputs]
    return np.moveaxis(product, 0, 1).reshape(rows.shape[1], -1)


def _run(model: Model, data: Array, **others: Array) -> Array:
    with open_session(model, as_written=True) as session:
        return np.asarray(session.run({session.inputs[0]: data, **others})[session.outputs[0]])


def _convolution(shape: tuple[int, ...], data: tuple[int, ...], attributes: dict[str, Any], seed: int) -> Model:
    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, data)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_rows_times_matrix_are_what_a_convolution_puts_out(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    blocks = data.draw(st.sampled_from([1, 1, 2, 3]))
    inside, outside = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))

    def per_axis(low: int, high: int) -> list[int]:
        return [data.draw(st.integers(low, high)) for _ in range(rank)]

    kernel, strides, dilations = per_axis(1, 3), per_axis(1, 3), per_axis(1, 2)
    lengths = per_axis(7, 9)
    attributes: dict[str, Any] = {"group": blocks, "strides": strides, "dilations": dilations}
    padding = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if padding == "NOTSET":
        attributes["pads"] = per_axis(0, 2) + per_axis(0, 2)
    else:
        attributes["auto_pad"] = padding
        attributes["dilations"] = [1] * rank  # onnxruntime pads SAME as if there were none
    if padding.startswith("SAME"):
        kernel = [max(size, stride) for size, stride in zip(kernel, strides, strict=True)]
    model = _convolution((blocks * outside, inside, *kernel), (2, blocks * inside, *lengths), attributes, seed=rank)
    layer, weight = _only(model)
    values = np.random.default_rng(3).standard_normal((2, blocks * inside, *lengths)).astype(np.float32)
    expected = np.moveaxis(_run(model, values), 1, -1).reshape(-1, blocks * outside)
    np.testing.assert_allclose(_product(layer, weight, values), expected, rtol=1e-3, atol=1e-4)


PRODUCTS = {
    "y = Gemm (x, w)": [4, 3],
    "y = Gemm <transB = 1> (x, w)": [3, 4],
    "y = MatMul (x, w)": [4, 3],
}


@pytest.mark.parametrize("text", PRODUCTS)
def test_rows_times_matrix_are_a_matrix_product(text: str) -> None:
    model = network(f"g (float[N,4] x) => (float[N,3] y) {{ {text} }}", {"w": PRODUCTS[text]})
    layer, weight = _only(model)
    values = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(_product(layer, weight, values), _run(model, values), rtol=1e-4, atol=1e-5)


def test_a_weight_in_front_reads_columns() -> None:
    model = network("g (float[N,4,6] x) => (float[N,3,6] y) { y = MatMul (w, x) }", {"w": [3, 4]})
    layer, weight = _only(model)
    values = np.random.default_rng(3).standard_normal((2, 4, 6)).astype(np.float32)
    expected = np.swapaxes(_run(model, values), 1, 2).reshape(-1, 3)
    np.testing.assert_allclose(_product(layer, weight, values), expected, rtol=1e-4, atol=1e-5)
    assert layer.reading == 1


def test_a_recurrent_layer_reads_its_sequence() -> None:
    text = "g (float[5,2,3] x) => (float[5,1,2,4] y) { y = RNN <hidden_size = 4> (x, w, r) }"
    model = network(text, {"w": [1, 4, 3], "r": [1, 4, 4]})
    layer, weight = _only(model)
    values = np.random.default_rng(3).standard_normal((1, 2, 3)).astype(np.float32)
    first = _run(network(text.replace("5", "1"), {"w": [1, 4, 3], "r": [1, 4, 4]}), values)
    np.testing.assert_allclose(np.tanh(_product(layer, weight, values)), first.reshape(2, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "shape"),
    [*((f"g (float[N,4] x) => (float[N,3] y) {{ {text} }}", shape) for text, shape in PRODUCTS.items()),
     ("g (float[N,4,6] x) => (float[N,3,6] y) { y = Conv <group = 2> (x, w) }", [6, 2, 1]),
     ("g (float[N,2,4] x) => (float[N,1,2,3] y) { y = RNN <hidden_size = 3> (x, w, r) }", [1, 3, 4])],
)  # fmt: skip
def test_a_matrix_becomes_the_weight_it_came_from(text: str, shape: list[int]) -> None:
    model = network(text.replace("[N,3,6]", "[N,6,6]"), {"w": shape, "r": [1, 3, 3]} if "RNN" in text else {"w": shape})
    layer, weight = _only(model)
    again = layer.weight_of(layer.matrix(weight), weight)
    assert again.dtype == weight.dtype
    np.testing.assert_array_equal(again, weight)


def test_rows_of_equal_seeds_are_of_the_same_places() -> None:
    model = _convolution((4, 3, 3, 3), (4, 3, 9, 9), {}, seed=0)
    layer, _ = _only(model)
    values = np.random.default_rng(3).standard_normal((4, 3, 9, 9)).astype(np.float32)
    one, two = (layer.rows(array, 20, np.random.default_rng(7)) for array in (values, 2 * values))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    assert one.shape == (1, 20, 27)


def test_units_of_rows_follow_the_kernel_and_the_blocks() -> None:
    model = _convolution((4, 2, 3), (1, 4, 9), {"group": 2}, seed=0)
    layer, _ = _only(model)
    np.testing.assert_array_equal(
        layer.units_of_rows(np.array([[5, -1], [7, 8]])), [[5, 5, 5, -1, -1, -1], [7, 7, 7, 8, 8, 8]]
    )


OFFSETS = {
    "y = Gemm (x, w, b)": ("b", 1.0),
    "y = Gemm <alpha = 2.0, beta = 0.5> (x, w, b)": ("b", 0.25),
    "h = MatMul (x, w) y = Add (h, b)": ("b", 1.0),
    "h = MatMul (x, w) y = Add (b, h)": ("b", 1.0),
    "h = Gemm (x, w) y = Add (h, b)": ("b", 1.0),
    "h = MatMul (x, w) z = Relu (h) y = Add (z, b)": None,
    "h = MatMul (x, w) z = Add (h, b) u = Sub (h, b) y = Add (z, u)": None,
}


@pytest.mark.parametrize("text", OFFSETS)
def test_an_offset_makes_up_for_a_constant_error(text: str) -> None:
    model = network(f"g (float[N,4] x) => (float[N,3] y) {{ {text} }}", {"w": [4, 3], "b": [3]})
    layer, _ = _only(model)
    found = None if layer.offset is None else (layer.offset.tensor, layer.offset.factor)
    assert found == OFFSETS[text]


def test_the_mean_of_a_normalisation_makes_up_with_the_other_sign() -> None:
    text = """g (float[N,3,5] x) => (float[N,4,5] y) {
        h = Conv (x, w) y = BatchNormalization (h, s, b, m, v) }"""
    model = network(text, {"w": [4, 3, 1], "s": [4], "b": [4], "m": [4], "v": [4]})
    layer, _ = _only(model)
    assert layer.offset is not None
    assert (layer.offset.tensor, layer.offset.factor) == ("m", -1.0)


LIMITS = {
    "y = Relu (h)": (0.0, np.inf),
    "y = Clip (h, low, high)": (-1.0, 6.0),
    "y = Clip (h, low)": (-1.0, np.inf),
    "y = Sigmoid (h)": None,
    "z = Relu (h) y = Add (z, h)": None,
}


@pytest.mark.parametrize("text", LIMITS)
@pytest.mark.parametrize("offset", ["h = Gemm (x, w, b)", "k = MatMul (x, w) h = Add (k, b)", "h = MatMul (x, w)"])
def test_limits_are_those_of_the_only_activation_behind(text: str, offset: str) -> None:
    model = network(
        f"""g (float[N,4] x) => (float[N,3] y) <float low = {{-1.0}}, float high = {{6.0}}> {{ {offset} {text} }}""",
        {"w": [4, 3], "b": [3]},
    )
    layer, _ = _only(model)
    assert layer.limits == LIMITS[text]


SHARED = {
    "two products": "g (float[N,4] x) => (float[N,3] y) { h = MatMul (x, w) k = MatMul (x, w) y = Add (h, k) }",
    "a product and another": "g (float[N,4] x) => (float[N,3] y, float[4,3] u) { y = MatMul (x, w) u = Identity (w) }",
    "none, it is computed": "g (float[N,4] x) => (float[N,3] y) { v = Abs (w) y = MatMul (x, v) }",
}


@pytest.mark.parametrize("name", SHARED)
def test_a_weight_of_other_readers_is_left_alone(name: str) -> None:
    assert find_layers(network(SHARED[name], {"w": [4, 3]})) == []
