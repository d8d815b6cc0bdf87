"""Sparse storage: smaller files, the same numbers, in whatever onnxruntime is installed."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import from_proto, load, save, to_proto
from onnxadmm.graph.sparse import to_sparse
from tests.graph.models import random_weight, small_network, weights_of


def _run(path: Path, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": feed})[0])


def _sparse_names(path: Path) -> list[str]:
    return [sparse.values.name for sparse in onnx.load(path).graph.sparse_initializer]


@pytest.mark.parametrize("zeros", [0.95, 1.0])
def test_sparse_weights_of_conv_gemm_and_matmul_run_and_save_space(zeros: float, tmp_path: Path) -> None:
    model = from_proto(small_network(zeros=zeros))
    dense = save(model, tmp_path / "dense.onnx")
    sparse = save(model, tmp_path / "sparse.onnx", sparse=True)
    assert set(_sparse_names(tmp_path / "sparse.onnx")) == {"conv.weight", "gemm.weight", "matmul.weight"}
    assert sparse == (tmp_path / "sparse.onnx").stat().st_size
    assert dense > 10 * sparse
    onnx.checker.check_model(tmp_path / "sparse.onnx")
    feed = random_weight(2, 3, 8, 8, seed=9)
    assert np.array_equal(_run(tmp_path / "dense.onnx", feed), _run(tmp_path / "sparse.onnx", feed))


def test_sparse_initializers_come_back_dense_and_are_stored_sparse_again(tmp_path: Path) -> None:
    original = small_network(zeros=0.9)
    save(from_proto(original), tmp_path / "a.onnx", sparse=True)
    model = load(tmp_path / "a.onnx")
    assert weights_of(to_proto(model)) == weights_of(original)
    assert not to_proto(model).graph.sparse_initializer
    save(model, tmp_path / "b.onnx")
    # Initializers that were stored dense have moved before those that were not; all else is the same.
    assert _sparse_names(tmp_path / "b.onnx") == _sparse_names(tmp_path / "a.onnx")
    assert weights_of(to_proto(load(tmp_path / "b.onnx"))) == weights_of(original)


def test_weights_that_would_grow_stay_dense(tmp_path: Path) -> None:
    save(from_proto(small_network(zeros=0.1)), tmp_path / "m.onnx", sparse=True)
    assert _sparse_names(tmp_path / "m.onnx") == []


@pytest.mark.parametrize(("ir_version", "listed"), [(4, False), (8, True)])
def test_old_formats_and_public_names_stay_dense(ir_version: int, listed: bool, tmp_path: Path) -> None:
    save(
        from_proto(small_network(zeros=0.9, opset=11, ir_version=ir_version, listed=listed)),
        tmp_path / "m.onnx",
        sparse=True,
    )
    assert _sparse_names(tmp_path / "m.onnx") == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sparse_weights_of_every_float_type_run(dtype: type, tmp_path: Path) -> None:
    weight = random_weight(64, 64, zeros=0.95).astype(dtype)
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("Add", ["x", "t"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx_type, [64, 64])],
        [helper.make_tensor_value_info("y", onnx_type, [64, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(from_proto(proto), tmp_path / "m.onnx", sparse=True)
    assert _sparse_names(tmp_path / "m.onnx") == ["w"]
    feed = np.zeros((64, 64), dtype=dtype)
    assert np.array_equal(_run(tmp_path / "m.onnx", feed), weight.T)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 1000),
    coordinates=st.booleans(),
)
def test_sparse_form_loses_no_bit(shape: list[int], zeros: float, seed: int, coordinates: bool) -> None:
    weight = random_weight(*shape, seed=seed, zeros=zeros)
    weight[..., :1] = -0.0
    weight[..., -1:] = np.nan
    sparse = to_sparse("w", onnx_ir.Tensor(weight))
    if sparse is None:
        return
    assert sparse.ByteSize() < numpy_helper.from_array(weight, "w").ByteSize()
    if coordinates:  # the other form that the standard has, as others write it
        linear = numpy_helper.to_array(sparse.indices)
        pairs = np.stack(np.unravel_index(linear, tuple(shape)), axis=1).astype(np.int64)
        sparse.indices.CopyFrom(numpy_helper.from_array(pairs))
    proto = small_network()
    proto.graph.sparse_initializer.append(sparse)
    read = load(proto).ir.graph.initializers["w"].const_value
    assert read is not None
    assert read.tobytes() == weight.tobytes()


def test_sparse_constants_become_dense_also_in_subgraphs() -> None:
    sparse = onnx.SparseTensorProto(dims=[2, 3])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [2], [1.0, 2.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [2], [1, 5]))
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], sparse_value=sparse)],
        "inner",
        [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 3])],
    )
    proto = small_network()
    proto.graph.input.add().CopyFrom(helper.make_tensor_value_info("cond", TensorProto.BOOL, []))
    proto.graph.node.add().CopyFrom(helper.make_node("Constant", [], ["u"], name="outer", sparse_value=sparse))
    proto.graph.node.add().CopyFrom(helper.make_node("If", ["cond"], ["w"], then_branch=inner, else_branch=inner))
    graph = load(proto).ir.graph
    branch = graph.node(len(graph) - 1).attributes["then_branch"].as_graph()
    for value in (graph.node("outer").outputs[0], branch.outputs[0]):
        array = constant(value)
        assert array is not None
        assert array.tolist() == [[0, 1, 0], [0, 0, 2]]


def test_only_the_weights_that_are_named_are_stored_sparsely(tmp_path: Path) -> None:
    model = from_proto(small_network(zeros=0.9))
    save(model, tmp_path / "m.onnx", sparse=("gemm.weight",))
    assert _sparse_names(tmp_path / "m.onnx") == ["gemm.weight"]
    save(model, tmp_path / "none.onnx", sparse=())
    assert _sparse_names(tmp_path / "none.onnx") == []
