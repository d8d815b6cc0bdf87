from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.prepare.signature import Signature, signature_of
from tests.train.graphs import mlp, model_of, random

CE = Loss()


def image_model(*shape: int | str, classes: int = 3, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A model of images [N, ...] whose logits are [N, classes]."""
    rank = len(shape)
    model = model_of(
        [
            helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f"], ["m"], axes=list(range(2, rank + 1)), keepdims=0),
            helper.make_node("ReduceMean", ["m"], ["s"], axes=[1], keepdims=1),
            helper.make_node("MatMul", ["s", "w"], ["logits"]),
        ],
        inputs={"image": ["N", *shape]},
        outputs=["logits"],
        weights={"w": random([1, classes])},
    )
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def load(source: object, model: onnx.ModelProto, loss: Loss = CE, **options: object) -> ArrayDataset:
    return load_data(source, signature=signature_of(model), loss=loss, **options)  # type: ignore[arg-type]


def first(data: ArrayDataset, name: str = "image") -> np.ndarray:
    return next(iter(data.batches(1000))).inputs[name]


LABELS = np.array([0, 2, 1, 0])
BYTES = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 9)).astype(np.uint8)
GREY = BYTES[:, 0]


def test_signature_names_inputs_and_logits() -> None:
    model = mlp()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    model.graph.output[0].name = "p"
    signature = signature_of(model)
    assert [(spec.name, spec.shape, spec.dtype) for spec in signature.inputs] == [
        ("x", (None, 6), np.dtype(np.float32))
    ]
    assert signature.logits == (None, 4)


@pytest.mark.parametrize(
    ("stored", "shape", "expected"),
    [
        (BYTES, (3, 8, 9), BYTES),
        (BYTES, (8, 9, 3), BYTES.transpose(0, 2, 3, 1)),
        (BYTES.transpose(0, 2, 3, 1), (3, 8, 9), BYTES),
        (BYTES.transpose(0, 2, 3, 1), (8, 9, 3), BYTES.transpose(0, 2, 3, 1)),
        (GREY, (1, 8, 9), GREY[:, None]),
        (GREY, (8, 9, 1), GREY[..., None]),
        (GREY[:, None], (8, 9, 1), GREY[..., None]),
        (GREY, (8, 9), GREY),
        (BYTES, (3, "H", "W"), BYTES),
        (BYTES.transpose(0, 2, 3, 1), (3, "H", "W"), BYTES),
    ],
)
def test_layout_follows_the_models_input(
    stored: np.ndarray, shape: tuple[int | str, ...], expected: np.ndarray
) -> None:
    data = load((stored, LABELS), image_model(*shape))
    np.testing.assert_allclose(first(data), expected / 255.0, rtol=1e-6)
    assert first(data).dtype == np.float32
    assert data.inputs["image"].dtype == np.uint8


def test_images_are_flattened_for_a_model_of_tables() -> None:
    data = load((GREY, LABELS % 4), mlp(inputs=72))
    np.testing.assert_allclose(first(data, "x"), GREY.reshape(4, 72) / 255.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("stored", "shape", "numbers"),
    [
        (BYTES, (3, 8, 8), r"\[3, 8, 8\].*\[3, 8, 9\]"),
        (BYTES, (1, 8, 9), r"\[1, 8, 9\].*\[3, 8, 9\]"),
        (GREY, (3, 8, 9), r"\[3, 8, 9\].*\[8, 9\]"),
        (BYTES[:, :2], (3, 8, 9), r"\[3, 8, 9\].*\[2, 8, 9\]"),
    ],
)
def test_wrong_shape_is_refused_with_both_shapes(stored: np.ndarray, shape: tuple[int, ...], numbers: str) -> None:
    with pytest.raises(DataError, match=numbers):
        load((stored, LABELS), image_model(*shape))


def test_bytes_reach_a_model_of_bytes_as_they_are() -> None:
    data = load((BYTES, LABELS), image_model(3, 8, 9, kind=TensorProto.UINT8))
    np.testing.assert_array_equal(first(data), BYTES)
    assert first(data).dtype == np.uint8


def test_fractions_for_a_model_of_integers_are_refused() -> None:
    with pytest.raises(DataError, match=r"uint8.*float32"):
        load((BYTES.astype(np.float32), LABELS), image_model(3, 8, 9, kind=TensorProto.UINT8))


def test_integers_that_do_not_fit_are_refused_with_their_range() -> None:
    with pytest.raises(DataError, match=r"0 to 255.*300"):
        load((BYTES.astype(np.int64) + 45, LABELS), image_model(3, 8, 9, kind=TensorProto.UINT8))


def test_mean_std_and_scale_reach_the_batches() -> None:
    data = load((BYTES, LABELS), image_model(3, 8, 9), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], scale=1 / 127.5)
    expected = (BYTES / 127.5 - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape([0.5, 0.6, 0.7], (3, 1, 1))
    np.testing.assert_allclose(first(data), expected, atol=1e-5)


def test_wrong_number_of_means_is_refused_with_the_numbers() -> None:
    with pytest.raises(OptionError, match=r"1 number or 3.*2 numbers"):
        load((BYTES, LABELS), image_model(3, 8, 9), mean=[0.1, 0.2])


def test_float64_is_kept_as_float32() -> None:
    data = load((BYTES.astype(np.float64), LABELS), image_model(3, 8, 9))
    assert data.inputs["image"].dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_the_sample(bad: float) -> None:
    values = np.zeros((4, 3, 8, 9), np.float32)
    values[2, 1, 0, 0] = bad
    with pytest.raises(DataError, match="sample 2"):
        load((values, LABELS), image_model(3, 8, 9))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2]), "4 of image, 3 of labels"),
        (np.array([0, 1, 2, 3]), "classes 0 to 2, as the model has 3 logits, found 0 to 3"),
        (np.array([0, 1, -1, 0]), "found -1 to 1"),
        (np.array([0.0, 1.5, 2.0, 0.0]), "integer classes, found dtype float64 with fractions.*--loss mse"),
        (np.full((4, 3), 1 / 3), r"a one-hot row, found rows of 3 numbers.*--loss bce"),
        (np.zeros((4, 2), np.int64), r"one class per sample.*found shape \[2\]"),
        (np.full(4, -100), "at least one label, found none.*--ignore-index"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_numbers(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load((BYTES, labels), image_model(3, 8, 9))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.bool_])
def test_integer_labels_of_any_width_become_int64(dtype: type) -> None:
    data = load((BYTES, (LABELS % 2).astype(dtype)), image_model(3, 8, 9))
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 0, 1, 0]


def test_column_of_labels_is_taken_as_one_per_sample() -> None:
    data = load((BYTES, LABELS[:, None]), image_model(3, 8, 9))
    assert data.labels is not None
    assert data.labels.shape == (4,)


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        load((BYTES[:0], LABELS[:0]), image_model(3, 8, 9))


def test_missing_labels_are_refused_unless_the_teacher_is_alone() -> None:
    with pytest.raises(DataError, match="labels for the loss cross-entropy"):
        load(BYTES, image_model(3, 8, 9))
    assert not load(BYTES, image_model(3, 8, 9), Loss(distillation=1.0)).has_labels
    with pytest.raises(DataError, match="labels"):
        load(BYTES, image_model(3, 8, 9), Loss(distillation=0.5))


@pytest.mark.parametrize(("outputs", "labels"), [(1, (4,)), (1, (4, 1)), (3, (4, 3))])
def test_targets_of_a_regression_take_the_shape_of_the_logits(outputs: int, labels: tuple[int, ...]) -> None:
    data = load((random([4, 6]), random(labels)), mlp(outputs=outputs), Loss(Task.MSE))
    assert data.labels is not None
    assert data.labels.shape == (4, outputs)
    assert data.labels.dtype == np.float32


def test_targets_of_another_width_are_refused_with_both_shapes() -> None:
    with pytest.raises(DataError, match=r"\[3\] per sample.*\[2\]"):
        load((random([4, 6]), random([4, 2])), mlp(outputs=3), Loss(Task.MSE))


def test_targets_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="sample 1"):
        load((random([2, 6]), np.array([0.0, np.nan])), mlp(outputs=1), Loss(Task.MSE))


def test_probabilities_outside_zero_to_one_are_refused_for_bce() -> None:
    with pytest.raises(DataError, match="0 to 1 for the loss bce"):
        load((random([4, 6]), np.array([0, 1, 2, 0])), mlp(outputs=1), Loss(Task.BCE))


def test_segmentation_labels_are_checked_position_by_position() -> None:
    model = model_of(
        [helper.make_node("Conv", ["image", "w"], ["out"], pads=[1, 1, 1, 1])],
        inputs={"image": ["N", 3, 8, 9]},
        outputs=["out"],
        weights={"w": random([5, 3, 3, 3])},
    )
    good = np.zeros((4, 8, 9), np.int64)
    assert load((BYTES, good), model).has_labels
    with pytest.raises(DataError, match=r"position \[8, 9\].*\[8, 8\]"):
        load((BYTES, good[..., :8]), model)


def write_folder(folder: Path, classes: int) -> Path:
    for index in range(classes):
        (folder / f"class{index}").mkdir()
        Image.fromarray(BYTES[index % 4].transpose(1, 2, 0)).save(folder / f"class{index}" / "one.png")
    return folder


def test_folder_fits_either_layout_and_grey_models(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, 3)
    np.testing.assert_allclose(first(load(folder, image_model(3, 8, 9))), BYTES[:3] / 255.0, rtol=1e-6)
    assert first(load(folder, image_model(8, 9, 3))).shape == (3, 8, 9, 3)
    assert first(load(folder, image_model(1, 8, 9))).shape == (3, 1, 8, 9)


@pytest.mark.parametrize("classes", [2, 4])
def test_number_of_class_folders_must_be_the_number_of_logits(tmp_path: Path, classes: int) -> None:
    with pytest.raises(DataError, match=f"3 classes, as the model has logits, found {classes}"):
        load(write_folder(tmp_path, classes), image_model(3, 8, 9))


def two_inputs() -> onnx.ModelProto:
    return model_of(
        [helper.make_node("Add", ["left", "right"], ["out"])],
        inputs={"left": ["N", 3], "right": ["N", 3]},
        outputs=["out"],
        weights={},
    )


def test_several_inputs_are_matched_by_name_or_position() -> None:
    left, right = random([4, 3], seed=1), random([4, 3], seed=2)
    by_name = load({"right": right, "left": left, "labels": LABELS}, two_inputs())
    by_position = load((left, right, LABELS), two_inputs())
    for data in (by_name, by_position):
        np.testing.assert_array_equal(first(data, "left"), left)
        np.testing.assert_array_equal(first(data, "right"), right)


def test_missing_input_is_refused_with_the_names() -> None:
    with pytest.raises(DataError, match=r"left, right.*found left"):
        load({"left": random([4, 3]), "labels": LABELS}, two_inputs())


def test_inputs_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="4 of left, 3 of right"):
        load({"left": random([4, 3]), "right": random([3, 3]), "labels": LABELS}, two_inputs())


def test_augmentation_reaches_the_batches_and_needs_images() -> None:
    data = load((BYTES, LABELS), image_model(3, 8, 9), augment="flip,crop2")
    plain = next(iter(data.batches(4))).inputs["image"]
    changed = next(iter(data.batches(4, augment=True, seed=1))).inputs["image"]
    assert not np.array_equal(plain, changed)
    again = next(iter(data.batches(4, augment=True, seed=1))).inputs["image"]
    np.testing.assert_array_equal(changed, again)
    with pytest.raises(OptionError, match="x of rank 2"):
        load((random([4, 6]), LABELS), mlp(), augment="flip")


def test_data_that_are_no_samples_at_all_are_refused() -> None:
    with pytest.raises(DataError):
        load((np.float32(1.0), np.int64(0)), mlp())


def test_model_of_unknown_logits_takes_labels_on_trust() -> None:
    signature = Signature(signature_of(mlp()).inputs, None)
    data = load_data((random([4, 6]), np.array([0, 7, 1, 2])), signature=signature, loss=CE)
    assert data.has_labels
