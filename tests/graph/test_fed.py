"""Inputs that hold no samples: which they are, their values, and models in which constants stand for them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxadmm.bench.inputs import fixed_batch, random_inputs
from onnxadmm.errors import OptionError
from onnxadmm.graph.fed import FedInput, batched_names, fed_inputs, fixed_values, hold_inputs
from onnxadmm.graph.model import from_proto, to_proto
from tests.train.graphs import model_of, random


def scaled(*shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y = x w k, where k has some shape and type."""
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["s", "f"], ["y"]),
        ],
        inputs={"k": list(shape), "x": ["n", 6]},
        outputs=["y"],
        weights={"w": random([6, 4])},
    )
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


@pytest.mark.parametrize(
    ("shapes", "batched"),
    [
        ({"x": (None, 6)}, {"x"}),
        ({"x": (None, 6), "k": (4,)}, {"x"}),
        ({"x": (None, 6), "k": ()}, {"x"}),
        ({"x": (None, 6), "k": (None, 2)}, {"x", "k"}),
        ({"k": (2,), "x": (1, 3, 8, 8)}, {"x"}),
        ({"k": (1,), "x": (1, 3, 8, 8)}, {"x"}),
        ({"k": (1, 2), "x": (1, 3, 8, 8)}, {"k", "x"}),
        ({"k": (4,), "x": (4, 3)}, {"k", "x"}),
        ({"k": ()}, set()),
    ],
)
def test_inputs_with_samples_are_told_from_those_without(shapes: dict[str, Any], batched: set[str]) -> None:
    assert batched_names(shapes) == batched


def test_the_batch_of_a_fixed_model_is_that_of_its_largest_input() -> None:
    model = scaled(4)
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 5
    assert fixed_batch(from_proto(model)) == 5


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        ((), 2, 2.0),
        ((1,), 2, [2.0]),
        ((2,), 3, [3.0, 3.0]),
        ((2,), [640, 480], [640.0, 480.0]),
        ((2, 2), [1, 2, 3, 4], [[1.0, 2.0], [3.0, 4.0]]),
        ((None,), [1, 2, 3], [1.0, 2.0, 3.0]),
        ((None, 2), [1, 2, 3, 4], [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_a_value_takes_the_shape_of_its_input(shape: tuple[int | None, ...], value: object, expected: Any) -> None:
    found = fixed_values([FedInput("k", shape, np.dtype(np.float32), batched=False)], {"k": value})["k"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(expected))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"q": 1}, "an input of the model: k, found 'q'"),
        ({"k": [1, 2, 3]}, r"its shape \[2\] has, found 3"),
        ({"k": "many"}, "numbers for k, found 'many'"),
        ({"k": [1.5, 2]}, "type int64 for k"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=f"--input.*{message}"):
        fixed_values([FedInput("k", (2,), np.dtype(np.int64), batched=False)], given)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE])
@pytest.mark.parametrize("shape", [(), (1,), (4,)])
def test_a_model_with_a_held_input_computes_the_same(shape: tuple[int, ...], kind: int) -> None:
    model = from_proto(scaled(*shape, kind=kind))
    value = fixed_values(fed_inputs(model), {"k": 1})["k"]
    held = hold_inputs(model, {"k": value})
    feed = random_inputs(model, batch=3, seed=0, inputs={"k": 1})
    assert feed["k"].shape == shape
    (expected,) = session(to_proto(model)).run(None, feed)
    (found,) = session(to_proto(held)).run(None, {"x": feed["x"]})
    np.testing.assert_array_equal(found, expected)
    assert [value.name for value in model.ir.graph.inputs] == ["k", "x"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16])
def test_random_inputs_without_axes_are_arrays(kind: int) -> None:
    model = from_proto(scaled(kind=kind))
    assert isinstance(random_inputs(model, batch=2, seed=0)["k"], np.ndarray)
    session(to_proto(model)).run(None, random_inputs(model, batch=2, seed=0))


def test_a_value_of_an_input_with_samples_is_that_of_each() -> None:
    model = from_proto(scaled("n", 4))
    feed = random_inputs(model, batch=3, seed=0, inputs={"k": [1, 2, 3, 4]})
    np.testing.assert_array_equal(feed["k"], np.tile(np.float32([1, 2, 3, 4]), (3, 1)))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
