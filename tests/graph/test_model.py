"""Models come back from the disk as they were."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.errors import ModelFileError
from onnxadmm.graph import store, weights
from onnxadmm.graph.constants import new_initializer, set_constant
from onnxadmm.graph.model import clone, from_proto, load, save, to_proto
from tests.graph.models import random_weight, small_network, weights_of
from tests.shared import need_shared

SHARED_MODELS = ("lenet5_mnist", "resnet20_cifar10", "resnet20_cifar10_bn")


def _run(model: str | bytes, name: str, feed: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    result = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {name: feed})
    return np.asarray(result[0])


@pytest.mark.parametrize("name", SHARED_MODELS)
def test_trained_models_survive_byte_for_byte(name: str, tmp_path: Path) -> None:
    path = need_shared(f"models/{name}.onnx")
    model = load(path)
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.file_bytes == path.stat().st_size
    copy = tmp_path / "copy.onnx"
    assert save(model, copy) == copy.stat().st_size
    onnx.checker.check_model(copy, full_check=True)
    before, after = onnx.load(path), onnx.load(copy)
    assert list(weights_of(before).items()) == list(weights_of(after).items())
    assert list(before.metadata_props) == list(after.metadata_props)
    assert [(n.name, n.op_type, n.input, n.output) for n in before.graph.node] == [
        (n.name, n.op_type, n.input, n.output) for n in after.graph.node
    ]
    assert list(before.graph.input) == list(after.graph.input)
    assert list(before.graph.output) == list(after.graph.output)
    side = before.graph.input[0].type.tensor_type.shape.dim
    feed = np.random.default_rng(0).random((2, *(dim.dim_value for dim in side[1:]))).astype(np.float32)
    fed = before.graph.input[0].name
    assert np.array_equal(_run(str(path), fed, feed), _run(str(copy), fed, feed))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = from_proto(small_network())
    save(model, tmp_path / "a.onnx")
    save(load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_descriptions_ir_version_and_training_information_survive(tmp_path: Path) -> None:
    proto = small_network(ir_version=9)
    training = proto.training_info.add()
    training.algorithm.name = "descent"
    training.algorithm.node.add(op_type="Identity", input=["conv.bias"], output=["next"])
    training.update_binding.add(key="conv.bias", value="next")
    save(load(proto), tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    assert list(copy.training_info) == list(proto.training_info)
    for field in ("ir_version", "doc_string", "producer_name"):
        assert getattr(copy, field) == getattr(proto, field)
    assert list(copy.metadata_props) == list(proto.metadata_props)
    assert copy.graph.doc_string == "a graph"
    assert [node.doc_string for node in copy.graph.node] == [node.doc_string for node in proto.graph.node]
    assert list(copy.graph.input) == list(proto.graph.input)


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_initializers_stay_listed_as_inputs(ir_version: int, tmp_path: Path) -> None:
    proto = small_network(opset=11, ir_version=ir_version, listed=True)
    save(load(proto), tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    onnx.checker.check_model(copy)
    assert list(copy.graph.input) == list(proto.graph.input)
    assert weights_of(copy) == weights_of(proto)


@pytest.mark.parametrize("opset", [7, 13, onnx.defs.onnx_opset_version()])
def test_opsets_from_7_to_the_newest_load(opset: int) -> None:
    assert load(small_network(opset=opset, ir_version=onnx.IR_VERSION)).ir.opset_imports[""] == opset


def test_functions_subgraphs_and_omitted_outputs_survive(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[N, 4] x, bool c) => (float[N, 4] y, float[N, 4] z) {
            t = local.twice(x)
            y = If(c) <
                then_branch = g1 () => (float[N, 4] a) { a = Add(t, x) },
                else_branch = g2 () => (float[N, 4] b) { b = Identity(t) }
            >
            z, m = Dropout(y)
        }
        <domain: "local", opset_import: ["": 17]> twice (v) => (w) { w = Add(v, v) }
        """
    )
    proto.graph.node[2].output[1] = ""
    branch = proto.graph.node[1].attribute[0].g
    branch.initializer.append(numpy_helper.from_array(random_weight(40, 40), "inner"))
    save(load(proto), tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    onnx.checker.check_model(copy)
    assert [function.name for function in copy.functions] == ["twice"]
    assert copy.graph.node[1].attribute[0].g.initializer[0].raw_data == branch.initializer[0].raw_data
    assert next(iter(copy.graph.node[2].output)) == "z"


def test_quantization_annotations_survive(tmp_path: Path) -> None:
    proto = small_network()
    annotation = proto.graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="conv.bias")
    save(load(proto), tmp_path / "copy.onnx")
    assert list(onnx.load(tmp_path / "copy.onnx").graph.quantization_annotation) == [annotation]


def test_external_data_stay_external_and_are_counted(tmp_path: Path) -> None:
    proto = small_network()
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=100)
    model = load(tmp_path / "m.onnx")
    assert model.file_bytes == (tmp_path / "m.onnx").stat().st_size + (tmp_path / "w.bin").stat().st_size
    written = save(model, tmp_path / "copy.onnx")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["copy.onnx", "copy.onnx.data", "m.onnx", "w.bin"]
    assert written == sum((tmp_path / name).stat().st_size for name in files[:2])
    assert weights_of(onnx.load(tmp_path / "copy.onnx")) == weights_of(small_network())
    onnx.checker.check_model(tmp_path / "copy.onnx", full_check=True)
    assert weights_of(to_proto(load(tmp_path / "copy.onnx"))) == weights_of(small_network())
    feed = random_weight(2, 3, 8, 8)
    inside = _run(small_network().SerializeToString(), "x", feed)
    assert np.array_equal(_run(str(tmp_path / "copy.onnx"), "x", feed), inside)


def test_a_model_may_be_saved_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_network(), path, save_as_external_data=True, location="m.onnx.data", size_threshold=100)
    model = load(path)
    save(model, path, force=True)
    save(load(path), path, force=True)
    assert weights_of(onnx.load(path)) == weights_of(small_network())
    assert weights_of(to_proto(model)) == weights_of(small_network())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_what_is_too_large_for_one_message_becomes_external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LARGEST_MESSAGE", 10_000)
    monkeypatch.setattr(store, "_COPIED_BELOW", 1024)
    model = from_proto(small_network())
    save(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").is_file()
    assert weights_of(onnx.load(tmp_path / "m.onnx")) == weights_of(small_network())
    with pytest.raises(ModelFileError, match="at most 2 GB"):
        to_proto(model)


def test_mapped_files_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMALLEST_MAPPED", 1)
    (tmp_path / "m.onnx").write_bytes(small_network().SerializeToString())
    model = load(tmp_path / "m.onnx")
    save(model, tmp_path / "m.onnx", force=True)
    assert weights_of(to_proto(model)) == weights_of(small_network())


def test_a_clone_may_be_edited_without_touching_the_original() -> None:
    model = from_proto(small_network())
    copy = clone(model)
    before = to_proto(model).SerializeToString(deterministic=True)
    set_constant(copy, copy.ir.graph.initializers["conv.bias"], np.zeros(8, dtype=np.float64))
    new_initializer(copy, "added", np.zeros(3, dtype=np.float32), taken=set())
    copy.ir.graph.node("relu").op_type = "Sigmoid"
    copy.ir.metadata_props["more"] = "text"
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert to_proto(copy).SerializeToString(deterministic=True) != before
    # Weights are shared, not copied.
    weight = model.ir.graph.initializers["gemm.weight"].const_value
    assert weight is copy.ir.graph.initializers["gemm.weight"].const_value


def test_load_hands_a_model_back_and_leaves_a_message_alone() -> None:
    proto = small_network()
    before = proto.SerializeToString(deterministic=True)
    model = load(proto)
    assert load(model) is model
    model.ir.graph.initializers["conv.bias"].const_value = None
    assert proto.SerializeToString(deterministic=True) == before
    assert model.sha256 == hashlib.sha256(before).hexdigest()


DTYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT64: np.int64,
    TensorProto.UINT8: np.uint8,
    TensorProto.BOOL: np.bool_,
    TensorProto.COMPLEX64: np.complex64,
}
PACKED = (TensorProto.INT4, TensorProto.UINT4, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from([*DTYPES, *PACKED]),
    shape=st.lists(st.integers(0, 60), max_size=3),
    raw=st.booleans(),
    place=st.sampled_from(["initializer", "constant"]),
    seed=st.integers(0, 1000),
)
def test_every_tensor_survives_a_round_trip(dtype: int, shape: list[int], raw: bool, place: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    if dtype in DTYPES:
        array = generator.integers(-5, 5, shape).astype(DTYPES[dtype])
        if raw:
            tensor = numpy_helper.from_array(array, "t")
        else:
            tensor = helper.make_tensor("t", dtype, shape, array.reshape(-1))
    else:
        values = generator.integers(0, 7, shape).astype(np.float32).reshape(-1)
        tensor = helper.make_tensor("t", dtype, shape, values)
    proto = small_network(ir_version=10, opset=21)
    if place == "initializer":
        proto.graph.initializer.append(tensor)
    else:
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["t"], value=tensor))
    copy = to_proto(load(to_proto(load(proto))))
    read = copy.graph.node[0].attribute[0].t if place == "constant" else copy.graph.initializer[-1]
    assert read.data_type == dtype
    assert list(read.dims) == shape
    assert numpy_helper.to_array(read).tobytes() == numpy_helper.to_array(tensor).tobytes()


def _zip_map_model() -> onnx.ModelProto:
    """A model that ends in ZipMap: onnx_ir knows no maps, users' classifiers do."""
    scores = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(entry))
    node = helper.make_node("ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[3, 7])
    graph = helper.make_graph([node], "zip", [scores], [output])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_an_output_of_maps_survives_loading_cloning_and_saving(tmp_path: Path) -> None:
    source = _zip_map_model()
    model = clone(load(source))
    assert to_proto(model).graph.output[0] == source.graph.output[0]
    save(model, tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx").graph.output[0] == source.graph.output[0]


def test_the_long_name_of_the_default_domain_is_the_empty_one() -> None:
    proto = small_network()
    version = proto.opset_import[0].version
    proto.opset_import[0].domain = "ai.onnx"
    assert dict(load(proto).ir.opset_imports) == {"": version}
    assert proto.opset_import[0].domain == "ai.onnx"
