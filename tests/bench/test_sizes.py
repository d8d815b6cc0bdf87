"""Counting: what is a weight and what is not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.bench.sizes import Sizes, measure_sizes, weights
from onnxadmm.graph.model import Model, from_proto, load
from tests.bench.models import dense, from_text, stamped
from tests.shared import need_shared

HEADER = '<ir_version: 9, opset_import: ["": 17]>'


def names(model: Model) -> set[str]:
    return {value.name or "" for value in weights(model)}


def test_weights_are_counted_and_zeros_among_them() -> None:
    model = from_text(
        f"{HEADER} g (float[N, 2] x) => (float[N, 3] y)"
        " <float[2, 3] w = {1, 0, 2, 0, 0, 3}, float[3] b = {0, 0, 1}> { h = MatMul(x, w) y = Add(h, b) }"
    )
    assert measure_sizes(model) == Sizes(model.file_bytes, parameters=9, nonzero_parameters=4, nodes=2)


def test_a_constant_node_counts_like_an_initializer_and_is_no_node() -> None:
    model = from_text(
        f"{HEADER} g (float[N, 3] x) => (float[N, 3] y)"
        " { w = Constant <value = float[3] {1, 2, 0}> () y = Mul(x, w) }"
    )
    sizes = measure_sizes(model)
    assert (sizes.parameters, sizes.nonzero_parameters, sizes.nodes) == (3, 2, 1)


def test_a_weight_two_nodes_share_counts_once() -> None:
    model = from_text(
        f"{HEADER} g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {{1, 2, 3}}> {{ h = Mul(x, w) y = Add(h, w) }}"
    )
    assert measure_sizes(model).parameters == 3


def test_a_weight_nobody_reads_does_not_count() -> None:
    model = from_text(f"{HEADER} g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {{1, 2, 3}}> {{ y = Relu(x) }}")
    assert measure_sizes(model).parameters == 0


def test_shapes_indices_bounds_scales_and_single_numbers_are_no_weights() -> None:
    model = from_text(
        f"{HEADER} g (float[1, 1, 2, 2] x) => (float[16] y)"
        " <float lowest = {0}, float[1] highest = {6}, float[4] scales = {1, 1, 2, 2}, int64[1] shape = {16},"
        " float half = {0.5}, float[1] exponent = {2}, int64[2] rows = {0, 1}, float[1] w = {2}>"
        " { a = Clip(x, lowest, highest) b = Resize(a, , scales) c = Reshape(b, shape) d = Mul(c, half)"
        "   e = Pow(d, exponent) y = Mul(e, w) }"
    )
    assert names(model) == {"w"}


def test_a_constant_used_both_as_a_bound_and_as_a_weight_is_a_weight() -> None:
    model = from_text(
        f"{HEADER} g (float[N, 1] x) => (float[N, 1] y) <float[1] six = {{6}}> {{ a = Pow(x, six) y = Mul(a, six) }}"
    )
    assert names(model) == {"six"}


def test_quantised_weights_count_and_their_grid_does_not() -> None:
    model = from_text(
        f"{HEADER} g (float[N, 2] x) => (float[N, 3] y)"
        " <int8[2, 3] w = {1, 0, 2, 0, 0, 3}, float[3] scale = {1, 1, 1}, int8[3] zero = {0, 0, 0},"
        "  int32[3] b = {5, 0, 1}, int32[3] bzero = {0, 0, 0}>"
        " { v = DequantizeLinear<axis = 1>(w, scale, zero) c = DequantizeLinear<axis = 0>(b, scale, bzero)"
        "   h = MatMul(x, v) y = Add(h, c) }"
    )
    assert names(model) == {"w", "b"}
    sizes = measure_sizes(model)
    assert (sizes.parameters, sizes.nonzero_parameters) == (9, 5)


def test_four_bit_weights_count_one_per_element() -> None:
    weight = helper.make_tensor("w", TensorProto.INT4, [3, 5], [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, 0, 1, 2, 3, 4])
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["w", "scale"], ["y"])],
        "four",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])],
        [weight, numpy_helper.from_array(np.array(1, np.float32), "scale")],
    )
    sizes = measure_sizes(from_proto(stamped(graph, opset=21)))
    assert (sizes.parameters, sizes.nonzero_parameters) == (15, 13)


def test_weights_inside_branches_count() -> None:
    model = from_text(
        f"{HEADER} g (bool c, float[2] x) => (float[2] y)"
        " { y = If (c) <then_branch = t () => (float[2] a) <float[2] w = {1, 2}> { a = Mul(x, w) },"
        "   else_branch = e () => (float[2] b) { b = Relu(x) }> }"
    )
    sizes = measure_sizes(model)
    assert (sizes.parameters, sizes.nodes) == (2, 3)


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEADER} g (float[1] x) => (float[1] y) {{ y = Relu(x) }}"), path)
    assert measure_sizes(load(path)).file_bytes == path.stat().st_size


def test_a_dense_chain_has_the_parameters_its_shapes_say() -> None:
    assert measure_sizes(dense(8, inner=5)).parameters == 8 * 5 + 5 * 8


@pytest.mark.parametrize(("file", "parameters"), [("lenet5_mnist.onnx", 431_080)])
def test_a_trained_model_has_the_parameters_its_paper_says(file: str, parameters: int) -> None:
    assert measure_sizes(load(need_shared(f"models/{file}"))).parameters == parameters
