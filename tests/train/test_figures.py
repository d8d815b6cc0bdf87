"""Metrics by name against scikit-learn, batch by batch; one's own; and what is refused."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from onnxadmm.errors import OptionError
from onnxadmm.train.data.weights import weigh
from onnxadmm.train.figures import figure_of, name_of
from onnxadmm.train.losses import IGNORED, Loss, Task
from onnxadmm.train.metrics import Meter, Metrics

CLASSES = 9


def measured(
    name: Any, task: Task, outputs: Any, labels: Any, *, teacher: Any = None, counts: Any = None, size: int = 7
) -> Metrics:
    """A metric of samples that come in batches, the last one not full."""
    meter = Meter(Loss(task), figure_of(name, task))
    for start in range(0, len(outputs), size):
        chosen = slice(start, start + size)
        parts = (None if each is None else each[chosen] for each in (labels, teacher, counts))
        meter.add(outputs[chosen], *parts)
    return meter.result()


def value_of(name: Any, task: Task, outputs: Any, labels: Any, **named: Any) -> float:
    found = measured(name, task, outputs, labels, **named)
    assert found.figure is not None
    assert found.figure[0] == name_of(name)
    assert found.deciding == found.figure[1]
    return found.deciding


def classes(*positions: int, count: int = 50) -> tuple[Any, Any]:
    """Logits and labels that agree now and then; the last two classes never occur, the one before is only answered."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, CLASSES - 3, (count, *positions))
    logits = generator.normal(size=(count, CLASSES, *positions)).astype(np.float32)
    logits[:, -2:] -= 20
    np.put_along_axis(logits, labels[:, None], np.take_along_axis(logits, labels[:, None], 1) + 1, 1)
    return logits, labels


@pytest.mark.parametrize("positions", [(), (4,)])
def test_weighted_metrics_of_classes_are_those_of_scikit_learn(positions: tuple[int, ...]) -> None:
    logits, labels = classes(*positions)
    counts = np.random.default_rng(4).uniform(0, 3, labels.shape).astype(np.float32)
    given, true, weights = rows(logits).argmax(1), labels.reshape(-1), counts.reshape(-1)
    task, named = Task.CROSS_ENTROPY, {"counts": counts}
    found = measured(None, task, logits, labels, **named)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, given, sample_weight=weights))
    assert value_of("f1", task, logits, labels, **named) == pytest.approx(
        metrics.f1_score(true, given, average="macro", sample_weight=weights)
    )
    assert value_of("mean-iou", task, logits, labels, **named) == pytest.approx(
        metrics.jaccard_score(true, given, average="macro", sample_weight=weights)
    )
    expected = metrics.top_k_accuracy_score(true, rows(logits), k=5, labels=range(CLASSES), sample_weight=weights)
    assert value_of("top-5", task, logits, labels, **named) == pytest.approx(expected)
    entropy = metrics.log_loss(true, chances(logits), labels=range(CLASSES), sample_weight=weights)
    assert value_of("perplexity", task, logits, labels, **named) == pytest.approx(np.exp(entropy), rel=1e-5)


def test_weighted_metrics_of_numbers_and_several_classes_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(5)
    labels = generator.normal(size=(40, 3)).astype(np.float32)
    outputs = (labels + generator.normal(size=labels.shape)).astype(np.float32)
    counts = generator.uniform(0, 3, 40).astype(np.float32)  # one for each sample
    assert value_of("r2", Task.MSE, outputs, labels, counts=counts) == pytest.approx(
        metrics.r2_score(labels, outputs, sample_weight=counts), rel=1e-5
    )
    assert value_of("mae", Task.MSE, outputs, labels, counts=counts) == pytest.approx(
        metrics.mean_absolute_error(labels, outputs, sample_weight=counts), rel=1e-5
    )
    signs = (labels > 0).astype(np.float32)
    assert value_of("f1", Task.BCE, outputs, signs, counts=counts) == pytest.approx(
        metrics.f1_score(signs, outputs > 0, average="macro", sample_weight=counts)
    )
    found = measured(None, Task.BCE, outputs, signs, counts=counts)
    assert found.accuracy == pytest.approx(
        metrics.accuracy_score(signs.reshape(-1), (outputs > 0).reshape(-1), sample_weight=np.repeat(counts, 3))
    )


def test_balanced_classes_make_the_accuracy_a_mean_over_classes() -> None:
    logits, labels = classes()
    weighing = weigh(classes="balanced", samples=None, labels=labels, count=CLASSES, loss=Loss(Task.CROSS_ENTROPY))
    assert weighing is not None
    counts = weighing.of(np.arange(len(labels)), labels)
    assert counts.mean() == pytest.approx(1)
    found = measured(None, Task.CROSS_ENTROPY, logits, labels, counts=counts)
    assert found.accuracy == pytest.approx(
        metrics.recall_score(labels, logits.argmax(1), labels=np.unique(labels), average="macro")
    )


def rows(logits: Any) -> Any:
    return np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])


def chances(logits: Any) -> Any:
    powers = np.exp(rows(logits).astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("positions", [(), (4,), (3, 2)])
def test_metrics_of_classes_are_those_of_scikit_learn(positions: tuple[int, ...]) -> None:
    logits, labels = classes(*positions)
    given, true = rows(logits).argmax(1), labels.reshape(-1)
    task = Task.CROSS_ENTROPY
    assert value_of("f1", task, logits, labels) == pytest.approx(metrics.f1_score(true, given, average="macro"))
    expected = metrics.jaccard_score(true, given, average="macro")
    assert value_of("mean-iou", task, logits, labels) == pytest.approx(expected)
    expected = metrics.top_k_accuracy_score(true, rows(logits), k=5, labels=range(CLASSES))
    assert value_of("top-5", task, logits, labels) == pytest.approx(expected)
    loss = metrics.log_loss(true, chances(logits), labels=range(CLASSES))
    assert value_of("perplexity", task, logits, labels) == pytest.approx(np.exp(loss))


@pytest.mark.parametrize("name", ["f1", "mean-iou", "top-5", "perplexity"])
def test_what_has_no_label_does_not_count(name: str) -> None:
    logits, labels = classes(6)
    gaps = labels.copy()
    gaps[::3] = IGNORED
    gaps[:, 2] = IGNORED
    kept = gaps.reshape(-1) != IGNORED
    expected = value_of(name, Task.CROSS_ENTROPY, rows(logits)[kept], labels.reshape(-1)[kept])
    assert value_of(name, Task.CROSS_ENTROPY, logits, gaps) == pytest.approx(expected)


def test_metrics_of_several_classes_at_once_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(60, 4)).astype(np.float32)
    labels = (generator.random((60, 4)) < 0.4).astype(np.float32)
    given = logits > 0
    for name, score in (("f1", metrics.f1_score), ("mean-iou", metrics.jaccard_score)):
        assert value_of(name, Task.BCE, logits, labels) == pytest.approx(score(labels > 0.5, given, average="macro"))
    one = value_of("f1", Task.BCE, logits[:, 0], labels[:, 0])
    assert one == pytest.approx(metrics.f1_score(labels[:, 0] > 0.5, given[:, 0]))


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_metrics_of_numbers_are_those_of_scikit_learn_far_from_zero_too(shift: float) -> None:
    generator = np.random.default_rng(7)
    labels = generator.normal(size=(80, 3)) * [1, 5, 0.2] + shift
    outputs = labels + generator.normal(size=(80, 3)) * 0.4
    assert value_of("r2", Task.MSE, outputs, labels) == pytest.approx(metrics.r2_score(labels, outputs), rel=1e-6)
    assert value_of("mae", Task.MSE, outputs, labels) == pytest.approx(metrics.mean_absolute_error(labels, outputs))


def test_a_target_that_never_varies_is_left_out_of_r2() -> None:
    labels = np.stack([np.arange(10.0), np.full(10, 3.0)], axis=1)
    expected = metrics.r2_score(labels[:, 0], labels[:, 0] + 1)
    assert value_of("r2", Task.MSE, labels + 1, labels) == pytest.approx(expected)
    constant = np.full((10, 1), 3.0)
    found = measured("r2", Task.MSE, constant + 1, constant)
    assert found.figure is None  # there is none, and the loss decides
    assert found.deciding == found.loss == 1
    assert found.goodness == -1


@pytest.mark.parametrize(("name", "task", "more"), [("r2", Task.MSE, True), ("mae", Task.MSE, False),
                                                    ("perplexity", Task.CROSS_ENTROPY, False)])  # fmt: skip
def test_goodness_grows_as_a_network_gets_better(name: str, task: Task, more: bool) -> None:
    generator = np.random.default_rng(0)
    right = generator.normal(size=(40, CLASSES))
    labels = right if task is Task.MSE else right.argmax(1)
    better, worse = (measured(name, task, right + noise * generator.normal(size=right.shape), labels)
                     for noise in (0.1, 2))  # fmt: skip
    assert better.goodness > worse.goodness
    assert (better.deciding > worse.deciding) == better.more_is_better == more


def test_without_a_metric_accuracy_decides_or_the_loss() -> None:
    logits, labels = classes()
    found = measured(None, Task.CROSS_ENTROPY, logits, labels)
    assert (found.figure, found.deciding, found.goodness) == (None, found.accuracy, found.accuracy)
    assert figure_of("accuracy", Task.BCE) is None
    found = measured(None, Task.MSE, logits, logits + 1)
    assert found.deciding == found.loss == pytest.approx(1)
    assert found.goodness == -found.loss


def test_the_teachers_answers_stand_in_for_labels() -> None:
    logits, labels = classes()
    teacher = np.eye(CLASSES, dtype=np.float32)[labels]
    for name in ("f1", "top-5", "perplexity"):
        expected = value_of(name, Task.CROSS_ENTROPY, logits, labels)
        assert value_of(name, Task.CROSS_ENTROPY, logits, None, teacher=teacher) == pytest.approx(expected)
    found = measured("mae", Task.MSE, logits, None, teacher=logits + 2)
    assert found.deciding == pytest.approx(2)
    assert found.against == "teacher"


def worst_class(outputs: Any, labels: Any) -> float:
    return min(float((outputs.argmax(1) == labels)[labels == each].mean()) for each in np.unique(labels))


def test_a_metric_of_ones_own_sees_all_samples_at_once() -> None:
    logits, labels = classes()
    assert value_of(worst_class, Task.CROSS_ENTROPY, logits, labels) == worst_class(logits, labels)
    seen: list[Any] = []
    value_of(lambda outputs, truth: seen.append((outputs, truth)) or 0.5, Task.MSE, logits, logits)
    ((outputs, truth),) = seen
    assert outputs.dtype == np.float32
    assert (outputs == logits).all()
    assert (truth == logits).all()


@pytest.mark.parametrize("value", [None, "much", float("nan"), float("inf")])
def test_a_metric_of_ones_own_that_gives_no_number_is_refused_by_its_name(value: Any) -> None:
    def broken(outputs: Any, labels: Any) -> Any:
        return value

    with pytest.raises(OptionError, match="--metric broken: expected a finite number"):
        measured(broken, Task.CROSS_ENTROPY, *classes())


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("auc", Task.CROSS_ENTROPY, "expected accuracy, top-5, f1, mean-iou or perplexity for the loss cross-entropy"),
        ("r2", Task.CROSS_ENTROPY, "found 'r2'"),
        ("accuracy", Task.MSE, "expected r2 or mae for the loss mse, found 'accuracy'"),
        ("top-5", Task.BCE, "expected accuracy, f1 or mean-iou for the loss bce"),
    ],
)
def test_a_metric_that_says_nothing_of_the_outputs_is_refused(name: str, task: Task, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        figure_of(name, task)


def test_top_5_of_five_classes_is_refused() -> None:
    logits, labels = classes()
    with pytest.raises(OptionError, match="more than five classes for top-5, found 5; use accuracy"):
        measured("top-5", Task.CROSS_ENTROPY, logits[:, :5], np.minimum(labels, 4))


def test_a_function_with_the_name_of_a_known_metric_is_refused() -> None:
    def mae(outputs: Any, labels: Any) -> float:
        return 0.0

    with pytest.raises(OptionError, match="--metric mae: expected a function with a name of its own"):
        figure_of(mae, Task.MSE)
