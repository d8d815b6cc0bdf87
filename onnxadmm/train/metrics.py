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
        self._right = 0
        self._answers = 0
        self._count = 0
        self._against = "labels"

    def add(self, logits: Array, labels: Array | None, teacher: Array | None) -> None:
        """Add samples: logits ``[n, ...]``, labels and teacher logits as a batch holds them."""
        if labels is None and teacher is None:
            raise ValueError("nothing to compare the logits with")
        scores = logits.astype(np.float64)
        self._sum += float(sample_losses(scores, labels, teacher, self._loss).sum())
        self._count += len(logits)
        if labels is None:
            self._against = "teacher"
        right = _right(scores, labels, teacher, self._loss.task)  # of what has a label
        if right is not None:
            self._right += int(right.sum())
            self._answers += right.size
        if self._counter is not None:
            self._counter.add(scores, _truth(labels, teacher, self._loss.task))

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
        return Metrics(self._sum / self._count, accuracy, self._count, self._against, figure, more_is_better)


def sample_losses(logits: DoubleArray, labels: Array | None, teacher: Array | None, loss: Loss) -> DoubleArray:
    """The loss of each sample, float64 ``[n]``; a term whose labels or teacher are missing is left out.

    Their mean is what training minimises, see ``onnxadmm.train.losses``.
    """
    share = loss.distillation if teacher is not None and labels is not None else float(labels is None)
    total = np.zeros(len(logits))
    if labels is not None and share < 1.0:
        total += (1.0 - share) * _flat_mean(_label_losses(logits, labels, loss.task))
    if teacher is not None and share > 0.0:
        total += share * _flat_mean(_teacher_losses(logits, teacher.astype(np.float64), loss))
    return total


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


def _right(logits: DoubleArray, labels: Array | None, teacher: Array | None, task: Task) -> NDArray[np.bool_] | None:
    if task is Task.MSE:
        return None
    truth = _truth(labels, teacher, task)
    if task is Task.CROSS_ENTROPY:
        return np.asarray((logits.argmax(axis=1) == truth)[truth != IGNORED])
    return np.asarray((logits > 0) == (truth > 0.5))
