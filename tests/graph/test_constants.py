"""Constants look the same wherever the file keeps them."""

import numpy as np
import onnx
import pytest

from onnxadmm.graph.constants import constant, new_initializer, set_constant, value_names
from onnxadmm.graph.model import from_proto, to_proto
from tests.graph.models import small_network

FORMS = {
    "value = float[2] {1.5, 2}": np.array([1.5, 2], dtype=np.float32),
    "value = int64 {7}": np.array(7, dtype=np.int64),
    "value_float = 1.5": np.array(1.5, dtype=np.float32),
    "value_floats = [1.5, 2.0]": np.array([1.5, 2], dtype=np.float32),
    "value_int = 7": np.array(7, dtype=np.int64),
    "value_ints = [7, 8]": np.array([7, 8], dtype=np.int64),
}


def _model(form: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y)'
        f"{{ k = Constant<{form}>() f = Cast<to=1>(k) y = Add(x, f) }}"
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_constant_node_is_read(form: str) -> None:
    graph = from_proto(_model(form)).ir.graph
    array = constant(graph.node(0).outputs[0])
    assert array is not None
    assert (array.dtype, array.shape) == (FORMS[form].dtype, FORMS[form].shape)
    assert np.array_equal(array, FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_constant_node_is_replaced(form: str) -> None:
    model = from_proto(_model(form))
    value = model.ir.graph.node(0).outputs[0]
    set_constant(model, value, np.array([[3.0]], dtype=np.float64))
    copy = from_proto(to_proto(model)).ir.graph.node(0)
    assert copy.op_type == "Constant"
    assert copy.outputs[0].name == "k"
    array = constant(copy.outputs[0])
    assert array is not None
    assert array.dtype == np.float64
    assert array.tolist() == [[3.0]]


def test_strings_are_read() -> None:
    graph = from_proto(_model('value_strings = ["a", "b"]')).ir.graph
    array = constant(graph.node(0).outputs[0])
    assert array is not None
    assert list(array) == ["a", "b"]


@pytest.mark.parametrize("listed", [False, True])
def test_initializers_are_constants_also_where_listed_as_inputs(listed: bool) -> None:
    model = from_proto(small_network(listed=listed))
    value = model.ir.graph.initializers["conv.bias"]
    assert constant(value) is not None
    set_constant(model, value, np.ones(5, dtype=np.float32))
    proto = to_proto(model)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "conv.bias")
    assert onnx.numpy_helper.to_array(tensor).tolist() == [1, 1, 1, 1, 1]
    for item in proto.graph.input:
        if item.name == "conv.bias":
            assert item.type.tensor_type.shape.dim[0].dim_value == 5


def test_inputs_and_computed_values_are_no_constants() -> None:
    model = from_proto(small_network())
    assert constant(model.ir.graph.inputs[0]) is None
    assert constant(model.ir.graph.outputs[0]) is None
    with pytest.raises(ValueError, match="not a constant"):
        set_constant(model, model.ir.graph.outputs[0], np.zeros(1))


def test_a_constant_written_as_a_strided_view_is_stored_right() -> None:
    model = from_proto(small_network())
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    set_constant(model, model.ir.graph.initializers["conv.bias"], weight.T[::2])
    array = constant(from_proto(to_proto(model)).ir.graph.initializers["conv.bias"])
    assert array is not None
    assert array.tolist() == weight.T[::2].tolist()


def test_new_initializers_get_names_that_nobody_has() -> None:
    model = from_proto(small_network())
    taken = value_names(model)
    names = [new_initializer(model, "c", np.zeros(2, dtype=np.int64), taken=taken).name for _ in range(3)]
    assert names == ["c_1", "c_2", "c_3"]
    scalar = new_initializer(model, "scalar", np.array(1.5, dtype=np.float32), taken=taken)
    proto = to_proto(model)
    onnx.checker.check_model(proto)
    assert list(proto.graph.initializer[-1].dims) == []
    assert scalar.name == "scalar"
