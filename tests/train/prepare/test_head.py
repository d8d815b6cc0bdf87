"""Logits in any layout, and several outputs, brought to samples on axis 0 and classes on axis 1."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.train.prepare.head import Head, all_outputs, order_of
from onnxadmm.train.prepare.signature import signature_of
from tests.train.graphs import Array, model_of, random


def run(model: Model, feed: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(result) for result in session.run(None, feed)]


def time_major() -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
        ],
        inputs={"x": ["n", 7, 6]},
        outputs=["t"],
        weights={"w": random([6, 4])},
    )


def three_outputs() -> onnx.ModelProto:
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Transpose", ["s"], ["times"], perm=[1, 0, 2]),
            helper.make_node("ReduceMean", ["s"], ["m"], axes=[1], keepdims=0),
            helper.make_node("Softmax", ["m"], ["shares"]),
            helper.make_node("ReduceMean", ["w"], ["fixed"], axes=[0]),
            helper.make_node("Shape", ["x"], ["sizes"]),
        ],
        inputs={"x": ["n", 7, 6]},
        outputs=["times", "shares", "fixed", "sizes"],
        weights={"w": random([6, 4])},
    )
    model.graph.output[3].type.tensor_type.elem_type = TensorProto.INT64
    return model


@pytest.mark.parametrize(
    ("rank", "batch", "classes", "order"),
    [
        (2, 0, 1, ()),
        (3, 0, None, ()),
        (3, 0, 2, (0, 2, 1)),
        (4, 0, 3, (0, 3, 1, 2)),
        (3, 1, None, (1, 0, 2)),
        (3, 1, 2, (1, 2, 0)),
    ],
)
def test_samples_come_first_then_classes(rank: int, batch: int, classes: int | None, order: tuple[int, ...]) -> None:
    assert order_of(rank, batch, classes) == order


def test_time_in_front_of_the_samples_is_seen() -> None:
    signature = signature_of(time_major())
    assert signature.logits == (7, None, 4)
    assert signature.batch_axis == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_found_on_its_axis(batch: int) -> None:
    model = time_major()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    assert signature_of(model).batch_axis == 1


def test_the_order_of_axes_is_that_of_training() -> None:
    model, x = from_proto(time_major()), random([3, 7, 6], seed=2)
    (given,) = run(model, {"x": x})
    (shown,) = run(Head({"t": (1, 2, 0)}).shown(model), {"x": x})
    np.testing.assert_array_equal(shown, given.transpose(1, 2, 0))


def test_a_model_as_training_reads_it_stays_itself() -> None:
    model = from_proto(time_major())
    assert Head({"t": ()}).shown(model) is model


def test_all_float_outputs_with_samples_are_laid_side_by_side() -> None:
    model, x = from_proto(three_outputs()), random([3, 7, 6], seed=2)
    head, left_out = all_outputs(model, keep_sigmoid=True)
    assert set(head.orders) == {"times", "shares"}
    assert set(left_out) == {"fixed", "sizes"}
    times, _, _, _ = run(model, {"x": x})
    (joined,) = run(head.shown(model), {"x": x})
    logits = (x @ random([6, 4])).mean(axis=1)
    parts = {"times": times.transpose(1, 0, 2).reshape(3, -1), "shares": logits}
    np.testing.assert_allclose(joined, np.concatenate([parts[name] for name in head.orders], axis=1), atol=1e-5)


def test_outputs_without_samples_are_refused_as_the_only_ones() -> None:
    model = three_outputs()
    del model.graph.output[0:2]
    with pytest.raises(NotTrainableError, match=r"found fixed, sizes.*--output NAME"):
        all_outputs(from_proto(model), keep_sigmoid=True)
