from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.errors import DataError, NotTrainableError, OptionError
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import IGNORED, Loss, Task
from onnxadmm.train.metrics import Meter
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, DoubleGraph, mlp, model_of, random
from tests.train.oracle import gradient_error

pytestmark = pytest.mark.usefixtures("engine")
Double = NDArray[np.float64]


def softmax(values: Double) -> Double:
    powers = np.exp(values)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def cross_entropy(logits: Double, labels: Array) -> float:
    picked = np.take_along_axis(softmax(logits), labels[:, None], axis=1)
    return float(-np.log(picked).mean())


def divergence(logits: Double, teacher: Array, temperature: float) -> float:
    p, q = softmax(teacher.astype(np.float64) / temperature), softmax(logits / temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())


def sigmoid(values: Double) -> Double:
    return np.asarray(1 / (1 + np.exp(-values)), np.float64)


def binary(logits: Double, labels: Array) -> float:
    p = sigmoid(logits)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


LABELS = np.array([0, 3, 1, 2, 2], np.int64)
TARGETS = random([5, 4], seed=11)
TEACHER = random([5, 4], seed=12, scale=2.0)
X = {"x": random([5, 6], seed=10)}


def test_cross_entropy_and_its_gradients_match_finite_differences() -> None:
    error = gradient_error(mlp(), loss=Loss(), inputs=X, labels=LABELS, oracle=lambda s: cross_entropy(s, LABELS))
    assert error < 1e-4


def test_the_gradient_comparison_notices_a_gradient_that_is_off_by_one_percent() -> None:
    error = gradient_error(
        mlp(), loss=Loss(), inputs=X, labels=LABELS, oracle=lambda s: cross_entropy(s, LABELS), planted=1.01
    )
    assert error > 1e-3


def test_mse_and_its_gradients_match_finite_differences() -> None:
    error = gradient_error(
        mlp(), loss=Loss(Task.MSE), inputs=X, labels=TARGETS, oracle=lambda s: float(((s - TARGETS) ** 2).mean())
    )
    assert error < 1e-4


def test_binary_cross_entropy_and_its_gradients_match_finite_differences() -> None:
    labels = (TARGETS > 0).astype(np.float32)
    error = gradient_error(mlp(), loss=Loss(Task.BCE), inputs=X, labels=labels, oracle=lambda s: binary(s, labels))
    assert error < 1e-4


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_teacher_alone_needs_no_labels_and_matches_finite_differences(temperature: float) -> None:
    error = gradient_error(
        mlp(),
        loss=Loss(distillation=1.0, temperature=temperature),
        inputs=X,
        teacher=TEACHER,
        oracle=lambda s: divergence(s, TEACHER, temperature),
    )
    assert error < 1e-4


def test_mixed_loss_weighs_labels_and_teacher() -> None:
    error = gradient_error(
        mlp(),
        loss=Loss(distillation=0.7, temperature=2.0),
        inputs=X,
        labels=LABELS,
        teacher=TEACHER,
        oracle=lambda s: 0.3 * cross_entropy(s, LABELS) + 0.7 * divergence(s, TEACHER, 2.0),
    )
    assert error < 1e-4


def test_mse_distillation_is_the_distance_to_the_teacher() -> None:
    error = gradient_error(
        mlp(),
        loss=Loss(Task.MSE, distillation=1.0, temperature=3.0),
        inputs=X,
        teacher=TEACHER,
        oracle=lambda s: float(((s - TEACHER) ** 2).mean()),
    )
    assert error < 1e-4


def test_bce_distillation_is_the_divergence_of_the_sigmoids() -> None:
    def oracle(logits: Double) -> float:
        p, q = sigmoid(TEACHER.astype(np.float64) / 2), sigmoid(logits / 2)
        return float(4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean())

    error = gradient_error(
        mlp(), loss=Loss(Task.BCE, distillation=1.0, temperature=2.0), inputs=X, teacher=TEACHER, oracle=oracle
    )
    assert error < 1e-4


def segmentation_inputs() -> tuple[dict[str, Array], Array, Array]:
    labels = np.random.default_rng(3).integers(0, 3, (2, 4, 5))
    return {"x": random([2, 2, 4, 5], seed=5)}, labels, random([2, 3, 4, 5], seed=6)


@pytest.mark.parametrize("distillation", [0.0, 0.5, 1.0])
def test_segmentation_takes_classes_on_axis_one(distillation: float) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w", "b"], ["logits"], pads=[1, 1, 1, 1])],
        inputs={"x": ["N", 2, 4, 5]},
        outputs=["logits"],
        weights={"w": random([3, 2, 3, 3], seed=1), "b": random([3], seed=2)},
    )
    x, labels, teacher = segmentation_inputs()
    error = gradient_error(
        model,
        loss=Loss(distillation=distillation, temperature=2.0),
        inputs=x,
        labels=labels,
        teacher=teacher,
        oracle=lambda s: (
            (1 - distillation) * cross_entropy(s, labels)
            + distillation * 4 * _position_divergence(s / 2, teacher.astype(np.float64) / 2)
        ),
    )
    assert error < 1e-4


def _position_divergence(student: Double, teacher: Double) -> float:
    p, q = softmax(teacher), softmax(student)
    return float((p * np.log(p / q)).sum(axis=1).mean())


def test_student_that_equals_its_teacher_has_no_loss_and_no_gradient() -> None:
    model = mlp()
    with OrtTrainer(model, loss=Loss(distillation=1.0, temperature=4.0), batch_size=5) as trainer:
        trainer.backward(Batch(X, None, TEACHER, 5))
        teacher = trainer.logits.copy()
        assert abs(trainer.backward(Batch(X, None, teacher, 5))) < 1e-6
        assert max(float(np.abs(gradient).max()) for gradient in trainer.gradients.values()) < 1e-6


@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(distillation=0.4, temperature=3.0),
        Loss(distillation=1.0),
        Loss(Task.MSE, distillation=0.5),
        Loss(Task.BCE, distillation=0.5, temperature=2.0),
    ],
)
def test_loss_of_the_metrics_equals_loss_of_the_engine(loss: Loss) -> None:
    labels: Array = (
        LABELS if loss.task is Task.CROSS_ENTROPY else sigmoid(TARGETS.astype(np.float64)).astype(np.float32)
    )
    with OrtTrainer(mlp(), loss=loss, batch_size=5) as trainer:
        value = trainer.backward(Batch(X, labels, TEACHER, 5))
        meter = Meter(loss)
        meter.add(trainer.logits, labels, TEACHER)
    assert meter.result().loss == pytest.approx(value, rel=1e-5)


def test_large_logits_give_a_finite_loss() -> None:
    model = mlp()
    labels = np.ones((5, 4), np.float32)
    with OrtTrainer(model, loss=Loss(Task.BCE), batch_size=5) as trainer:
        trainer.weights["b2"][...] = -1e4
        assert trainer.backward(Batch(X, labels, None, 5)) == pytest.approx(1e4, rel=1e-3)
        assert all(np.isfinite(gradient).all() for gradient in trainer.gradients.values())


def test_cross_entropy_on_one_logit_is_refused() -> None:
    with pytest.raises(NotTrainableError, match="at least 2 classes"):
        OrtTrainer(mlp(outputs=1), loss=Loss(), batch_size=5)


@pytest.mark.parametrize(("distillation", "temperature"), [(-0.1, 1.0), (1.1, 1.0), (float("nan"), 1.0), (0.5, 0.0)])
def test_loss_refuses_weights_outside_zero_to_one_and_temperatures_that_are_not_positive(
    distillation: float, temperature: float
) -> None:
    with pytest.raises(OptionError):
        Loss(distillation=distillation, temperature=temperature)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_positions_without_a_label_add_nothing_and_have_no_gradient(distillation: float) -> None:
    labels = np.where(np.arange(5) == 2, IGNORED, LABELS)
    loss = Loss(distillation=distillation, gaps=True)

    def oracle(logits: Double) -> float:
        known = labels != IGNORED
        own = cross_entropy(logits[known], labels[known]) * known.mean()
        return (1 - distillation) * own + distillation * divergence(logits, TEACHER, 1.0)

    teacher = TEACHER if distillation else None
    assert gradient_error(mlp(), loss=loss, inputs=X, labels=labels, teacher=teacher, oracle=oracle) < 1e-4


COUNTS = np.array([0.5, 2.0, 0.0, 1.5, 1.0], np.float32)


@pytest.mark.parametrize("distillation", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("gaps", [False, True])
def test_weighted_cross_entropy_and_its_teacher_match_finite_differences(distillation: float, gaps: bool) -> None:
    labels = np.where((np.arange(5) == 1) & gaps, IGNORED, LABELS)

    def oracle(logits: Double) -> float:
        known = labels != IGNORED
        own = -np.log(softmax(logits)[np.arange(5), np.where(known, labels, 0)]) * known
        p, q = softmax(TEACHER.astype(np.float64) / 2), softmax(logits / 2)
        taught = 4 * (p * np.log(p / q)).sum(axis=1)
        return float((COUNTS * ((1 - distillation) * own + distillation * taught)).mean())

    loss = Loss(distillation=distillation, temperature=2.0, gaps=gaps, weighted=True)
    error = gradient_error(mlp(), loss=loss, inputs=X, labels=labels, teacher=TEACHER, weights=COUNTS, oracle=oracle)
    assert error < 1e-4


@pytest.mark.parametrize("distillation", [0.0, 0.6])
def test_weighted_numbers_and_several_classes_at_once_match_finite_differences(distillation: float) -> None:
    counts = COUNTS[:, None].astype(np.float64)

    def squares(logits: Double) -> float:
        both = (1 - distillation) * (logits - TARGETS) ** 2 + distillation * (logits - TEACHER) ** 2
        return float((counts * both).mean())

    loss = Loss(Task.MSE, distillation=distillation, weighted=True)
    given: dict[str, Any] = {"inputs": X, "teacher": TEACHER, "weights": COUNTS}
    assert gradient_error(mlp(), loss=loss, labels=TARGETS, oracle=squares, **given) < 1e-4
    labels = (TARGETS > 0).astype(np.float32)

    def entropies(logits: Double) -> float:
        p, q = sigmoid(logits), sigmoid(TEACHER.astype(np.float64))
        own = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
        taught = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
        return float((counts * ((1 - distillation) * own + distillation * taught)).mean())

    loss = Loss(Task.BCE, distillation=distillation, weighted=True)
    assert gradient_error(mlp(), loss=loss, labels=labels, oracle=entropies, **given) < 1e-4


def test_weighted_positions_match_finite_differences() -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w", "b"], ["logits"], pads=[1, 1, 1, 1])],
        inputs={"x": ["N", 2, 4, 5]},
        outputs=["logits"],
        weights={"w": random([3, 2, 3, 3], seed=1), "b": random([3], seed=2)},
    )
    x, labels, teacher = segmentation_inputs()
    counts = np.array([0.2, 3.0, 1.0], np.float32)[labels]

    def oracle(logits: Double) -> float:
        own = -np.log(np.take_along_axis(softmax(logits), labels[:, None], axis=1)[:, 0])
        p, q = softmax(teacher.astype(np.float64)), softmax(logits)
        return float((counts * (0.5 * own + 0.5 * (p * np.log(p / q)).sum(axis=1))).mean())

    loss = Loss(distillation=0.5, weighted=True)
    error = gradient_error(model, loss=loss, inputs=x, labels=labels, teacher=teacher, weights=counts, oracle=oracle)
    assert error < 1e-4
    meter = Meter(loss)
    logits = DoubleGraph(model).run(x).astype(np.float32)
    meter.add(logits, labels, teacher, counts)
    found = meter.result()
    assert found.loss == pytest.approx(oracle(logits.astype(np.float64)) / counts.mean(), rel=1e-5)
    right = logits.argmax(axis=1) == labels
    assert found.accuracy == pytest.approx((counts * right).sum() / counts.sum(), rel=1e-6)


def test_parts_of_a_weighted_batch_take_its_step() -> None:
    loss = Loss(weighted=True, distillation=0.5)
    batch = Batch(X, LABELS, TEACHER, 5, weights=COUNTS)
    with (
        OrtTrainer(mlp(), loss=loss, batch_size=5) as whole,
        OrtTrainer(mlp(), loss=loss, batch_size=5, workers=2, accumulate=2) as parts,
    ):
        assert parts.backward(batch) == pytest.approx(whole.backward(batch), rel=1e-6)
        for name, gradient in whole.gradients.items():
            np.testing.assert_allclose(parts.gradients[name], gradient, rtol=1e-5, atol=1e-7)


def test_weights_that_are_missing_are_refused() -> None:
    with (
        OrtTrainer(mlp(), loss=Loss(weighted=True), batch_size=5) as trainer,
        pytest.raises(DataError, match=r"onnxadmm\.weights: expected float32 of shape \[5\], found nothing"),
    ):
        trainer.backward(Batch(X, LABELS, None, 5))


def test_a_batch_without_any_label_has_no_loss() -> None:
    with OrtTrainer(mlp(), loss=Loss(gaps=True), batch_size=5) as trainer:
        assert trainer.backward(Batch(X, np.full(5, IGNORED), None, 5)) == 0.0
        assert not any(gradient.any() for gradient in trainer.gradients.values())


def test_accuracy_counts_what_has_a_label() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    meter = Meter(Loss(gaps=True))
    meter.add(logits, np.array([0, IGNORED, 2, 1]), None)
    result = meter.result()
    assert result.accuracy == pytest.approx(2 / 3)
    known = -np.log(softmax(logits.astype(np.float64)))[[0, 2, 3], [0, 2, 1]]
    assert result.loss == pytest.approx(known.sum() / 4)


def test_parts_of_a_batch_with_gaps_take_its_step() -> None:
    labels = np.array([0, IGNORED, IGNORED, 2, 2], np.int64)
    loss = Loss(gaps=True)
    with (
        OrtTrainer(mlp(), loss=loss, batch_size=5) as whole,
        OrtTrainer(mlp(), loss=loss, batch_size=5, accumulate=2) as parts,
    ):
        assert parts.backward(Batch(X, labels, None, 5)) == pytest.approx(whole.backward(Batch(X, labels, None, 5)))
        for name, gradient in whole.gradients.items():
            np.testing.assert_allclose(parts.gradients[name], gradient, rtol=1e-4, atol=1e-6)
