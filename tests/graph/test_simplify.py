"""onnxsim may make a model simpler, and nothing else."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest

from onnxadmm.graph import simplify as door
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, from_proto, load, to_proto
from onnxadmm.graph.simplify import simplify
from tests.graph.models import random_weight, small_network
from tests.shared import need_shared

BATCH_NORM = """
<ir_version: 3, opset_import: ["": 9], producer_name: "someone", doc_string: "about">
g (float[batch, 3, 8, 8] x, float[3] s) => (float[out, 4, 6, 6] y) {
    [conv] c = Conv<kernel_shape = [3, 3]>(x, w)
    [norm] b = BatchNormalization(c, scale, bias, mean, var)
    [copy] i = Identity(b)
    [last] y = Relu(i)
}
"""


def _batch_norm() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(BATCH_NORM)
    weights = {"w": random_weight(4, 3, 3, 3), "s": random_weight(3)}
    weights |= {name: np.abs(random_weight(4, seed=5)) for name in ("scale", "bias", "mean", "var")}
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        if name != "s":
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weight.shape)
            proto.graph.input.append(info)
    proto.metadata_props.add(key="author", value="nobody")
    proto.graph.node[0].doc_string = "the only convolution"
    return proto


def _run(model: Model, feed: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": feed})[0])


def test_interface_descriptions_names_and_batch_normalization_survive() -> None:
    proto = _batch_norm()
    model = from_proto(proto)
    result = simplify(model)
    assert result.changed, result.note
    simplified = to_proto(result.model)
    onnx.checker.check_model(simplified)
    kinds = [node.op_type for node in simplified.graph.node]
    assert kinds == ["Conv", "BatchNormalization", "Relu"]
    assert list(simplified.graph.output) == list(proto.graph.output)
    assert simplified.graph.input[0] == proto.graph.input[0]
    for field in ("ir_version", "producer_name", "doc_string"):
        assert getattr(simplified, field) == getattr(proto, field)
    assert list(simplified.opset_import) == list(proto.opset_import)
    assert list(simplified.metadata_props) == list(proto.metadata_props)
    assert simplified.graph.node[0].doc_string == "the only convolution"
    assert simplified.graph.node[0].input[1] == "w"
    assert (result.model.sha256, result.model.path) == (model.sha256, model.path)
    feed = random_weight(2, 3, 8, 8)
    assert np.allclose(_run(model, feed), _run(result.model, feed), atol=1e-5)


def test_a_simple_model_is_handed_back_itself() -> None:
    model = from_proto(small_network())
    result = simplify(model)
    assert not result.changed
    assert result.model is model
    assert result.note == "already simple"


def test_weights_of_the_trained_network_keep_their_names() -> None:
    model = load(need_shared("models/resnet20_cifar10_bn.onnx"))
    result = simplify(model)
    assert result.changed
    assert set(result.model.ir.graph.initializers) == set(model.ir.graph.initializers)


def test_failures_give_the_original_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model = from_proto(_batch_norm())

    def fail(*_: object, **__: object) -> tuple[onnx.ModelProto, bool]:
        raise RuntimeError("no such luck\nand more")

    def refuse(proto: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        return proto, False

    def rename(proto: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        proto.graph.output[0].name = "other"
        return proto, True

    def spoil(proto: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        del proto.graph.node[0].input[:]
        return proto, True

    for stand_in, words in ((fail, "no such luck"), (refuse, "check"), (rename, "outputs"), (spoil, "broken")):
        monkeypatch.setattr(onnxsim, "simplify", stand_in)
        result = simplify(model)
        assert (result.model is model, result.changed) == (True, False)
        assert words in result.note
        assert "\n" not in result.note


def test_large_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LARGEST_SIMPLIFIED", 10)
    assert "too large" in simplify(from_proto(small_network())).note


def test_nothing_is_written_to_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    # The addition cannot be folded, about which onnxsim complains.
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (float[N] y) { a = Add(w, v) y = Identity(a) }'
    )
    for name, size in (("w", 7), ("v", 3)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(random_weight(size), name))
    onnxsim.simplify(proto)
    assert "".join(capfd.readouterr()) != ""  # it would be seen
    simplify(from_proto(proto))
    assert "".join(capfd.readouterr()) == ""


FUNCTION = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[N, 4] x) => (float[N, 4] y) {
    a = local.twice(x)
    y = local.twice(a)
}
<domain: "local", opset_import: ["": 17]> twice (v) => (w) { t = Relu(v) w = Add(t, v) }
"""


def test_functions_are_inlined_in_a_copy() -> None:
    model = from_proto(onnx.parser.parse_model(FUNCTION))
    result = inline(model)
    assert [node.op_type for node in result.ir.graph] == ["Relu", "Add", "Relu", "Add"]
    assert not result.ir.functions
    assert [node.op_type for node in model.ir.graph] == ["twice", "twice"]
    onnx.checker.check_model(to_proto(result))
    feed = random_weight(3, 4)
    assert np.array_equal(_run(model, feed), _run(result, feed))
    plain = from_proto(small_network())
    assert inline(plain) is plain


def test_a_simplified_model_can_be_saved_and_loaded(tmp_path: Path) -> None:
    from onnxadmm.graph.model import save

    result = simplify(from_proto(_batch_norm()))
    save(result.model, tmp_path / "m.onnx")
    assert len(load(tmp_path / "m.onnx").ir.graph) == 3


@pytest.mark.slow
def test_what_is_computed_from_little_is_not_stored() -> None:
    """Three numbers become a table of 200 000: the file would be larger than what was given."""
    model = from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            counted (float[N,200000] x) => (float[N,200000] y)
            <float zero = {0}, float end = {200000}, float one = {1}>
            { r = Range (zero, end, one)
              s = Sin (r)
              y = Mul (x, s) }"""
        )
    )
    simplified = simplify(model)
    assert simplified.model is model
    assert simplified.note.startswith("not simplified, that would store 80")


def test_weights_in_constant_nodes_are_stored_already() -> None:
    """As initializers, which simplifying makes of them, they are no more."""
    table = onnx.numpy_helper.from_array(np.arange(100_000, dtype=np.float32), "table")
    nodes = [
        onnx.helper.make_node("Constant", [], ["table"], value=table),
        onnx.helper.make_node("Identity", ["table"], ["same"]),
        onnx.helper.make_node("Mul", ["x", "same"], ["y"]),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 100_000]) for name in "xy")
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "stored", [x], [y]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert simplify(from_proto(proto)).changed
