"""Labels of every usual form, and the axis of the logits along which their classes lie."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.labels import Fitted, fit_labels, match_classes
from onnxadmm.train.losses import IGNORED, Loss, Task
from onnxadmm.train.prepare.signature import Signature, signature_of
from tests.train.graphs import model_of, random

CE = Loss()


def fit(labels: Any, logits: tuple[int | None, ...], loss: Loss = CE, **more: Any) -> Fitted:
    tail = more.pop("tail", None)
    batch = more.pop("batch", 0)
    signature = Signature((), logits, batch_axis=batch, class_axis=tail)
    return fit_labels(
        None if labels is None else np.asarray(labels), name="data", signature=signature, loss=loss, **more
    )


def tagger(*tail: onnx.NodeProto, length: int = 5, classes: int = 5, opset: int = 17) -> onnx.ModelProto:
    """Logits ``[N, length, classes]`` of positions, and what stands behind them."""
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["s"]), *tail],
        inputs={"x": ["N", length, 6]},
        outputs=[tail[-1].output[0] if tail else "s"],
        weights={"w": random([6, classes])},
        opset=opset,
    )


# -- the axis of the classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "opset", "axis"),
    [
        (helper.make_node("Softmax", ["s"], ["p"], axis=-1), 17, 2),
        (helper.make_node("Softmax", ["s"], ["p"]), 17, 2),
        (helper.make_node("Softmax", ["s"], ["p"], axis=1), 17, 1),
        (helper.make_node("LogSoftmax", ["s"], ["p"], axis=2), 17, 2),
        (helper.make_node("ArgMax", ["s"], ["p"], axis=2, keepdims=0), 17, 2),
        (helper.make_node("ArgMax", ["s"], ["p"], axis=1), 17, 1),
        (helper.make_node("Softmax", ["s"], ["p"], axis=2), 11, 2),
        (helper.make_node("Softmax", ["s"], ["p"]), 11, None),  # takes axes 1 and 2 as one
        (helper.make_node("Sigmoid", ["s"], ["p"]), 17, None),
    ],
)
def test_the_tail_says_along_which_axis_the_classes_lie(node: onnx.NodeProto, opset: int, axis: int | None) -> None:
    model = tagger(node, opset=opset)
    if node.op_type == "ArgMax":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert signature_of(model).class_axis == axis


def test_what_stands_nearest_to_the_logits_decides() -> None:
    softmax = helper.make_node("Softmax", ["s"], ["p"], axis=2)
    model = tagger(softmax, helper.make_node("ArgMax", ["p"], ["c"], axis=1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert signature_of(model).class_axis == 2


@pytest.mark.parametrize(
    ("labels", "logits", "axis"),
    [
        (np.zeros((4, 12), int), (None, 12, 5), 2),
        (np.zeros((4, 5), int), (None, 12, 5), 1),
        (np.zeros((4, 8, 9), int), (None, 8, 9, 3), 3),
        (np.zeros((4, 8, 9), int), (None, 3, 8, 9), 1),
        (np.zeros((4, 1, 8, 9), int), (None, 3, 8, 9), 1),
        (np.zeros((4, 8, 9), int), (None, 3, None, None), 1),
        (np.full((4, 5), 7), (None, 5, 9), 2),
        (np.full((4, 5), 5), (None, 5, 5 + 1), 2),
        (np.eye(3, dtype=np.float32)[np.zeros((4, 7), int)], (None, 7, 3), 2),
        (None, (None, 10), 1),
    ],
)
def test_the_only_axis_that_labels_fit_is_taken(labels: Any, logits: tuple[int | None, ...], axis: int) -> None:
    loss = CE if labels is not None else Loss(distillation=1.0)
    assert fit(labels, logits, loss).class_axis == axis


@pytest.mark.parametrize("labels", [np.zeros((4, 5), int), None])
def test_two_axes_that_fit_are_refused_until_one_is_named(labels: Any) -> None:
    loss = CE if labels is not None else Loss(distillation=1.0)
    with pytest.raises(OptionError, match=r"--class-axis.*\[\?, 5, 5\].*axes 1 and 2"):
        fit(labels, (None, 5, 5), loss)
    assert fit(labels, (None, 5, 5), loss, class_axis=1).class_axis == 1
    assert fit(labels, (None, 5, 5), loss, class_axis=-1).class_axis == 2
    assert fit(labels, (None, 5, 5), loss, tail=2).class_axis == 2


def test_the_axis_that_is_asked_for_stands_above_the_tail() -> None:
    assert fit(np.zeros((4, 5), int), (None, 5, 5), tail=2, class_axis=1).class_axis == 1


@pytest.mark.parametrize("axis", [0, 3, -4])
def test_an_axis_that_cannot_be_is_refused(axis: int) -> None:
    with pytest.raises(OptionError, match=f"--class-axis.*found {axis}"):
        fit(np.zeros((4, 5), int), (None, 5, 5), class_axis=axis)


def test_time_in_front_of_the_samples_is_no_axis_of_classes() -> None:
    assert fit(np.zeros((4, 8), int), (8, None, 5), batch=1).class_axis == 2
    with pytest.raises(OptionError, match="without 1"):
        fit(np.zeros((4, 8), int), (8, None, 5), batch=1, class_axis=1)


@pytest.mark.parametrize("option", ["class_axis", "ignore_index"])
def test_options_about_classes_are_refused_where_there_are_none(option: str) -> None:
    with pytest.raises(OptionError, match="--loss cross-entropy, found --loss mse"):
        fit(np.zeros((4, 5)), (None, 5), Loss(Task.MSE), **{option: 1})


# -- labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, -100, 2], 3, [0, 1, IGNORED, 2]),
        (np.uint8([0, 255, 2, 255]), 3, [0, IGNORED, 2, IGNORED]),
        ([0, 255, 2, 254], 256, [0, 255, 2, 254]),
        ([0.0, -100.0, 2.0], 3, [0, IGNORED, 2]),
    ],
)
def test_the_usual_marks_of_no_label_are_taken_as_such_and_said(labels: Any, classes: int, expected: list[int]) -> None:
    fitted = fit(labels, (None, classes))
    assert fitted.labels is not None
    assert fitted.labels.tolist() == expected
    assert any("no label" in note for note in fitted.notes) == (IGNORED in expected)


def test_another_mark_is_named() -> None:
    with pytest.raises(DataError, match="--ignore-index"):
        fit([0, 1, -1, 2], (None, 3))
    fitted = fit([0, 1, -1, 2], (None, 3), ignore_index=-1)
    assert fitted.labels is not None
    assert fitted.labels.tolist() == [0, 1, IGNORED, 2]
    with pytest.raises(DataError, match="-100 to 2"):
        fit([0, -1, -100, 2], (None, 3), ignore_index=-1)


def test_one_hot_rows_are_read_as_classes_and_said() -> None:
    fitted = fit(np.eye(3, dtype=np.float32)[[0, 2, 1]], (None, 3))
    assert fitted.labels is not None
    assert fitted.labels.tolist() == [0, 2, 1]
    assert "One-hot" in fitted.notes[0]


def test_one_hot_masks_are_read_along_the_axis_of_the_classes() -> None:
    masks = np.random.default_rng(0).integers(0, 3, (4, 8, 9))
    for axis in (1, 3):
        rows = np.moveaxis(np.eye(3)[masks], -1, axis)
        fitted = fit(rows, rows.shape)
        np.testing.assert_array_equal(np.asarray(fitted.labels), masks)
        assert fitted.class_axis == axis


def test_whole_floats_are_read_as_classes_and_said() -> None:
    fitted = fit(np.array([0.0, 2.0, 1.0]), (None, 3))
    assert fitted.labels is not None
    assert fitted.labels.dtype == np.int64
    assert "float64" in fitted.notes[0]


def test_targets_of_a_time_major_output_have_the_samples_in_front() -> None:
    fitted = fit(random([4, 8, 5]), (8, None, 5), Loss(Task.MSE), batch=1)
    assert fitted.labels is not None
    assert fitted.labels.shape == (4, 8, 5)
    with pytest.raises(DataError, match=r"shape \[8, 5\]"):
        fit(random([4, 7, 5]), (8, None, 5), Loss(Task.MSE), batch=1)


def test_classes_without_a_sample_are_named() -> None:
    assert any("classes have no sample: 1, 3" in note for note in fit([0, 2, 4, 2], (None, 5)).notes)


def test_labels_that_are_not_finite_are_refused_as_such() -> None:
    with pytest.raises(DataError, match="finite numbers, found NaN or infinity in sample 1"):
        fit([0.0, np.nan, 1.0], (None, 3))


def test_targets_beyond_float32_are_refused_before_they_are_infinite() -> None:
    with pytest.raises(DataError, match=r"numbers that float32 can hold, found 1e\+39 in sample 2"):
        fit([[1.0], [2.0], [-1e39]], (None, 1), Loss(Task.MSE))


def test_names_are_no_numbers_for_the_loss_mse() -> None:
    with pytest.raises(DataError, match=r"numbers for the loss mse, found names of classes \(a, b\)"):
        fit([0, 1], (None, 1), Loss(Task.MSE), classes=["a", "b"])


def test_classes_are_numbered_by_their_names_as_other_data_did() -> None:
    labels = np.array([0, 2, 1, 2])
    found, names = match_classes(labels, ["cat", "bee", "ant"], ["ant", "bee", "cat", "dog"], name="test")
    assert found.tolist() == [2, 0, 1, 0]
    assert names == ("ant", "bee", "cat", "dog")
    with pytest.raises(DataError, match=r"the classes of the training data \(ant, bee\), found cat"):
        match_classes(labels, ["cat", "bee", "ant"], ["ant", "bee"], name="test")
