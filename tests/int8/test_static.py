"""What is rounded, how far, and what keeps its floats."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.int8.static import Quantizer

Array = NDArray[Any]

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 6, 6] x) => (float[N, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  r = Relu (a)
  p = GlobalAveragePool (r)
  f = Flatten (p)
  g = Gemm (f, v, c)
  y = Softmax (g)
}
"""
SHAPES = {"w": (8, 2, 3, 3), "b": (8,), "v": (8, 5), "c": (5,)}


def made(text: str = TEXT, *, seed: int = 0) -> onnx.ModelProto:
    proto = parser.parse_model(text)
    generator = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        # Channels of very different sizes: one scale for all would round the small ones away.
        sizes = np.geomspace(0.01, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1)) if name == "w" else 1.0
        array = (generator.standard_normal(shape) * sizes).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def batches(count: int = 4) -> list[Mapping[str, Array]]:
    generator = np.random.default_rng(1)
    return [{"x": generator.standard_normal((16, 2, 6, 6)).astype(np.float32)} for _ in range(count)]


def outputs(model: Model) -> Array:
    with open_session(model) as session:
        return np.concatenate([session.run(feed)["y"] for feed in batches()])


def rounded(model: Model, name: str) -> tuple[Array, Array]:
    """The bytes of a weight, and their scales."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_proto(model).graph.initializer}
    return arrays[f"{name}_quantized"], arrays[f"{name}_scale"]


@pytest.mark.parametrize(("narrow", "largest"), [(False, 127), (True, 64)])
def test_weights_are_the_nearest_bytes_of_every_channel(narrow: bool, largest: int) -> None:
    proto = made()
    model = Quantizer(from_proto(proto), batches(), narrow=narrow).quantized()
    weight = numpy_helper.to_array(next(each for each in proto.graph.initializer if each.name == "w"))
    found, scale = rounded(model, "w")
    assert found.dtype == np.int8
    assert np.abs(found.astype(int)).max() <= largest
    expected = np.abs(weight).reshape(8, -1).max(axis=1) / largest
    assert (scale < 1.05 * expected).all()  # each channel has its own, no coarser than its largest weight asks for
    error = np.abs(found * scale.reshape(-1, 1, 1, 1) - weight).reshape(8, -1).max(axis=1)
    assert (error <= 0.501 * scale).all()


def test_outputs_stay_near_and_the_face_of_the_model_as_it_was() -> None:
    proto = made()
    proto.doc_string, proto.producer_name = "words", "me"
    proto.metadata_props.add(key="k", value="v")
    model = from_proto(proto)
    small = Quantizer(model, batches()).quantized()
    assert np.abs(outputs(small) - outputs(model)).max() < 0.02
    message = to_proto(small)
    assert {node.op_type for node in message.graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Softmax"}
    assert (message.doc_string, message.producer_name, message.graph.name) == ("words", "me", "net")
    assert [(each.key, each.value) for each in message.metadata_props] == [("k", "v")]
    assert list(message.graph.input) == list(proto.graph.input)
    assert [each.name for each in message.graph.output] == ["y"]
    assert [each.domain for each in message.opset_import] == [""]
    onnx.checker.check_model(message, full_check=True)


def test_what_is_left_in_floats_is_exact() -> None:
    model = from_proto(made())
    quantizer = Quantizer(model, batches())
    assert len(quantizer.nodes) >= 4  # all but the Softmax, each with a name
    whole = quantizer.quantized(quantizer.nodes)
    assert "QuantizeLinear" not in {node.op_type for node in whole.ir.graph}
    np.testing.assert_allclose(outputs(whole), outputs(model), atol=1e-6)
    (conv,) = [name for name in quantizer.nodes if name.startswith("Conv")]
    part = quantizer.quantized({conv})
    assert "w" in part.ir.graph.initializers
    assert "v_quantized" in part.ir.graph.initializers


def test_an_older_model_is_raised_to_the_first_opset_with_scales_of_channels() -> None:
    model = from_proto(made(TEXT.replace('"" : 17', '"" : 11')))
    small = Quantizer(model, batches()).quantized()
    assert small.ir.opset_imports[""] == 13
    assert np.abs(outputs(small) - outputs(model)).max() < 0.02


def test_what_cannot_be_quantised_is_one_sentence() -> None:
    small = Quantizer(from_proto(made()), batches()).quantized()
    with pytest.raises(ModelFileError, match="found one that is in bytes already; give the model in floats"):
        Quantizer(small, batches())
    nodes = [helper.make_node("Exp", ["x"], ["y"])]
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 6, 6])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2, 6, 6])
    bare = helper.make_model(
        helper.make_graph(nodes, "g", [value], [result]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    with pytest.raises(ModelFileError, match="found no operator that it can; leave it in floats"):
        Quantizer(from_proto(bare), batches())
