"""Loss, accuracy and what else decides of logits, in numpy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.train.figures import Figure
from onnxadmm.train.losses import IGNORED, Loss, Task

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """How well a model does on some samples.

    Attributes:
        loss: mean of the training loss over the samples.
        accuracy: share of right classes (of right positions, for logits of rank above 2; of right signs, for
            bce) among those that have a label, from 0 to 1; None for mse, and where nothing has a label.
        count: samples.
        against: ``"labels"``, or ``"teacher"`` where the data have no labels and the teacher's classes stand in.
        figure: name and value of what decides in place of the accuracy, or of the loss without one; None: nothing does.
        more_is_better: of what decides.
    """

    loss: float
    accuracy: float | None
    count: int
    against: str
    figure: tuple[str, float] | None = None
    more_is_better: bool = True

    @property
    def deciding(self) -> float:
        """What decides: the figure, the accuracy, or the loss where there is neither."""
        if self.figure is not None:
            return self.figure[1]
        return self.loss if self.accuracy is None else self.accuracy

    @property
    def goodness(self) -> float:
        """What decides, with the sign that makes more better."""
        return self.deciding if self.more_is_better else -self.deciding


class Meter:
    """Adds up metrics batch by batch."""

    def __init__(self, loss: Loss, figure: Figure | None = None) -> None:
        self._loss = loss
        self._figure = figure
        self._counter = None if figure is None else figure.counter()
        self._sum = 0.0
        self._right = self._answers = self._weight = 0.0
        self._count = 0
        self._against = "labels"

    def add(self, logits: Array, labels: Array | None, teacher: Array | None, weights: Array | None = None) -> None:
        """Add samples: logits ``[n, ...]``, labels, teacher logits and weights as a batch holds them."""
        if labels is None and teacher is None:
            raise ValueError("nothing to compare the logits with")
        scores = logits.astype(np.float64)
        self._sum += float(sample_losses(scores, labels, teacher, self._loss, weights).sum())
        self._count += len(logits)
        self._weight += len(logits) if weights is None else float(_flat_mean(weights).sum())
        if labels is None:
            self._against = "teacher"
        truth = _truth(labels, teacher, self._loss.task)
        counts = None if weights is None else weights_of_answers(weights, truth.shape)
        if self._loss.task is not Task.MSE:
            known, right = _right(scores, truth, self._loss.task)
            self._right += float(right.sum() if counts is None else (right * counts).sum())
            self._answers += float(known.sum() if counts is None else (known * counts).sum())
        if self._counter is not None:
            self._counter.add(scores, truth, counts)

    def result(self) -> Metrics:
        """Metrics of everything added.

        Raises:
            ValueError: nothing was added.
        """
        if self._count == 0:
            raise ValueError("no samples were added")
        accuracy = self._right / self._answers if self._answers else None
        value = None if self._counter is None else self._counter.result()
        figure, more_is_better = None, accuracy is not None
        if self._figure is not None and value is not None:
            figure, more_is_better = (self._figure.name, value), self._figure.more_is_better
        loss = self._sum / self._weight if self._weight else 0.0
        return Metrics(loss, accuracy, self._count, self._against, figure, more_is_better)


def sample_losses(
    logits: DoubleArray, labels: Array | None, teacher: Array | None, loss: Loss, weights: Array | None = None
) -> DoubleArray:
    """The loss of each sample, float64 ``[n]``; a term whose labels or teacher are missing is left out.

    Their mean is what training minimises, see ``onnxadmm.train.losses``.

    Args:
        weights: of samples ``[n]``, or for cross-entropy of positions, of the shape of labels; None: all alike.
    """
    share = loss.distillation if teacher is not None and labels is not None else float(labels is None)
    total = np.zeros(len(logits))
    if labels is not None and share < 1.0:
        total += (1.0 - share) * _flat_mean(_weighed(_label_losses(logits, labels, loss.task), weights))
    if teacher is not None and share > 0.0:
        total += share * _flat_mean(_weighed(_teacher_losses(logits, teacher.astype(np.float64), loss), weights))
    return total


def weights_of_answers(weights: Array, shape: tuple[int, ...]) -> DoubleArray:
    """Weights of samples or positions as those of answers, float64 of their shape."""
    spread = weights.reshape(*weights.shape, *[1] * (len(shape) - weights.ndim))
    return np.broadcast_to(spread.astype(np.float64), shape)


def _weighed(losses: DoubleArray, weights: Array | None) -> DoubleArray:
    """Losses ``[n, ...]`` (of classes ``[n, 1, ...]``) times their weights."""
    if weights is None:
        return losses
    along = weights[:, None] if weights.ndim > 1 else weights
    return losses * weights_of_answers(along, losses.shape)


def _flat_mean(values: DoubleArray) -> DoubleArray:
    return np.asarray(values.reshape(len(values), -1).mean(axis=1), np.float64)


def _label_losses(logits: DoubleArray, labels: Array, task: Task) -> DoubleArray:
    if task is Task.CROSS_ENTROPY:
        known = labels != IGNORED
        chosen = np.where(known, labels, 0).astype(np.int64)
        picked = np.take_along_axis(log_softmax(logits), chosen[:, None], axis=1)
        return np.where(known[:, None], -picked, 0.0)
    if task is Task.MSE:
        return (logits - labels) ** 2
    return np.logaddexp(0.0, logits) - logits * labels


def _teacher_losses(logits: DoubleArray, teacher: DoubleArray, loss: Loss) -> DoubleArray:
    if loss.task is Task.MSE:
        return (logits - teacher) ** 2
    student, target = logits / loss.temperature, teacher / loss.temperature
    if loss.task is Task.CROSS_ENTROPY:
        log_target = log_softmax(target)
        divergence = (np.exp(log_target) * (log_target - log_softmax(student))).sum(axis=1, keepdims=True)
    else:
        share = 1.0 / (1.0 + np.exp(-np.clip(target, -700, 700)))
        divergence = np.logaddexp(0.0, student) - np.logaddexp(0.0, target) + (target - student) * share
    return np.asarray(loss.temperature**2 * divergence, np.float64)


def log_softmax(logits: DoubleArray) -> DoubleArray:
    """Log-probabilities over axis 1."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)


def _truth(labels: Array | None, teacher: Array | None, task: Task) -> Array:
    """Labels, or what the teacher answers in their place: its classes, probabilities of 0 or 1, or numbers."""
    if labels is not None:
        return labels
    assert teacher is not None
    if task is Task.CROSS_ENTROPY:
        return np.asarray(teacher.argmax(axis=1))
    return np.asarray(teacher > 0, np.float32) if task is Task.BCE else teacher


def _right(logits: DoubleArray, truth: Array, task: Task) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which answers have a label, and which are right."""
    if task is Task.CROSS_ENTROPY:
        known = np.asarray(truth != IGNORED)
        return known, (logits.argmax(axis=1) == truth) & known
    return np.ones(truth.shape, np.bool_), (logits > 0) == (truth > 0.5)
