"""Weights stored as float16 and read as float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.bench.sizes import measure_sizes
from onnxadmm.demo import DemoFiles
from onnxadmm.graph.halves import with_halved_weights
from onnxadmm.graph.model import from_proto, to_proto

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def layered(*arrays: NDArray[np.float32], body: str, ir_version: int = 8) -> oa.Model:
    """A network with weights ``w0``, ``w1``..."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : 17]> {body}')
    for number, array in enumerate(arrays):
        proto.graph.initializer.append(numpy_helper.from_array(array, f"w{number}"))
    return from_proto(proto)


def matrix(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(model: oa.Model) -> dict[str, int]:
    """Type of each initializer."""
    return {tensor.name: tensor.data_type for tensor in to_proto(model).graph.initializer}


def test_the_digits_are_half_the_file_and_answer_as_before(digits: DemoFiles, tmp_path: Path) -> None:
    original = oa.load(digits.model)
    made, kept = with_halved_weights(original)
    path = tmp_path / "half.onnx"
    oa.save(made, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert kept == ()
    assert path.stat().st_size < 0.52 * digits.model.stat().st_size
    before, after = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (digits.model, path)
    )
    assert [(each.name, each.type, each.shape) for each in after.get_inputs()] == [
        (each.name, each.type, each.shape) for each in before.get_inputs()
    ]
    images = np.random.default_rng(0).random((32, 1, 8, 8), np.float32)
    was, is_now = (session.run(None, {"image": images})[0] for session in (before, after))
    assert is_now.dtype == np.float32
    assert 0 < np.square(is_now - was).sum() < 1e-5 * np.square(was - was.mean(0)).sum()
    # What is counted of a network does not depend on how it is stored.
    loaded = oa.load(path)
    assert measure_sizes(loaded).parameters == measure_sizes(original).parameters
    assert oa.find_groups(loaded).count == oa.find_groups(original).count


def test_onnxruntime_reads_halves_when_it_loads_and_not_when_it_runs(digits: DemoFiles, tmp_path: Path) -> None:
    oa.save(with_halved_weights(oa.load(digits.model))[0], tmp_path / "half.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(tmp_path / "half.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    assert "Cast" not in {node.op_type for node in graph.node}
    assert HALF not in {tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan], ids=str)
def test_a_weight_that_leaves_the_range_of_halves_keeps_its_floats_and_is_named(value: float) -> None:
    wide = matrix(16, 16)
    wide[3, 4] = value
    body = "g (float[N, 16] x) => (float[N, 16] y) { a = MatMul (x, w0)  y = MatMul (a, w1) }"
    made, kept = with_halved_weights(layered(wide, matrix(16, 16, seed=1), body=body))
    assert kept == ("w0",)
    types = stored(made)
    assert types["w0"] == FLOAT
    assert HALF in types.values()
    assert with_halved_weights(layered(np.full((16, 16), 65504, np.float32), body=body.replace("w1", "w0")))[1] == ()


def test_what_is_small_and_what_is_no_float32_stays() -> None:
    body = """g (float[N, 16] x) => (float[N, 16] y) {
      shape = Constant <value_ints: ints = [-1, 16]> ()
      a = MatMul (x, w0)  b = Add (a, w1)  c = Reshape (b, shape)  y = Clip (c, w2, w3) }"""
    bounds = (np.array(0, np.float32), np.array(6, np.float32))
    made, kept = with_halved_weights(layered(matrix(16, 16), matrix(16), *bounds, body=body))
    assert kept == ()
    types = stored(made)
    assert sorted(types.values()).count(HALF) == 1
    assert {types[f"w{number}"] for number in (1, 2, 3)} == {FLOAT}


def test_weights_that_are_inputs_or_outputs_as_well_stay() -> None:
    body = "g (float[N, 16] x, float[16, 16] w0) => (float[N, 16] y) { y = MatMul (x, w0) }"
    for version in (3, 8):
        assert (
            HALF not in stored(with_halved_weights(layered(matrix(16, 16), body=body, ir_version=version))[0]).values()
        )


def test_a_weight_read_twice_and_in_a_branch_is_stored_once_under_another_name() -> None:
    body = """g (float[N, 16] x, bool flag) => (float[N, 16] y) {
      a = MatMul (x, w0)  b = MatMul (a, w0)
      y = If (flag) <then_branch = then () => (float[N, 16] t) { t = MatMul (b, w0) },
                     else_branch = other () => (float[N, 16] e) { e = Add (b, x) }> }"""
    model = layered(matrix(16, 16), body=body)
    made, _ = with_halved_weights(model)
    proto = to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node].count("Cast") == 1
    feeds = {"x": matrix(4, 16, seed=2), "flag": np.array(True)}
    was, is_now = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for each in (to_proto(model), proto)
    )
    np.testing.assert_allclose(is_now, was, rtol=0.01, atol=0.05)
    assert stored(model) == {"w0": FLOAT}, "the given model stays as it is"


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_in_constant_nodes_are_stored_so_too(ir_version: int) -> None:
    body = "g (float[N, 16] x) => (float[N, 16] y) { a = MatMul (x, w)  y = Add (a, w) }"
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : 17]> {body}')
    proto.graph.node.insert(
        0, onnx.helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(matrix(16, 16)))
    )
    made, kept = with_halved_weights(from_proto(proto))
    assert kept == ()
    after = to_proto(made)
    onnx.checker.check_model(after, full_check=True)
    assert len(after.SerializeToString()) < 0.7 * len(proto.SerializeToString())
    feeds = {"x": matrix(16, 16, seed=2)}
    was, is_now = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for each in (proto, after)
    )
    np.testing.assert_allclose(is_now, was, rtol=0.01, atol=0.05)
