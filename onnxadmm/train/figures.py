"""Figures that may decide in place of accuracy or the loss: top-5, F1, mean IoU, R2, MAE, perplexity, one's own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import OptionError
from onnxadmm.train.losses import IGNORED, Task

Array = NDArray[Any]
#: A metric of one's own: outputs float32 ``[N, ...]`` as the loss reads them, before a Softmax or Sigmoid at the end,
#: and labels as a batch holds them; it returns a number of which more is better.
OwnMetric = Callable[[Array, Array], float]

_TOP: Final = 5


class Counter(Protocol):
    """Adds up one figure batch by batch."""

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        """Add samples: outputs float64 ``[n, ...]``; labels, or the teacher's answers in their place.

        Args:
            weights: what each answer counts, of the shape of ``truth``; None: all alike.
        """
        ...

    def result(self) -> float | None:
        """The figure of all that was added; None where there is none, as for classes that nothing has."""
        ...


@dataclass(frozen=True)
class Figure:
    """What is measured beside the loss, and decides.

    Attributes:
        name: as reports call it.
        more_is_better: or less.
        counter: makes what adds it up.
        is_share: whether 1 is the most that it can be, so that hundredths of it are points.
        needs_labels: whether the teacher's answers may not stand in for labels.
    """

    name: str
    more_is_better: bool
    counter: Callable[[], Counter]
    is_share: bool = False
    needs_labels: bool = False


def figure_of(metric: "str | OwnMetric | None", task: Task) -> Figure | None:
    """Return the figure of a name, or of a function.

    Args:
        metric: what was asked for; None: accuracy, or the loss where outputs are numbers.
        task: what the outputs mean.

    Returns:
        None for what decides anyway.

    Raises:
        OptionError: there is none of this name, or it says nothing of such outputs.
    """
    if metric is None or (metric == "accuracy" and task is not Task.MSE):
        return None
    if callable(metric):
        function = metric
        if any(name_of(metric) in _figures(each) for each in Task):
            raise OptionError(
                f"--metric {name_of(metric)}",
                expected="a function with a name of its own",
                found="that of a known metric",
                way_out="call it otherwise, or give the name alone",
            )
        return Figure(name_of(metric), True, lambda: _Own(function), needs_labels=True)
    fitting = _figures(task)
    if metric not in fitting:
        names = [*(() if task is Task.MSE else ("accuracy",)), *fitting]
        raise OptionError(
            "--metric",
            expected=f"{', '.join(names[:-1])} or {names[-1]} for the loss {task.value}",
            found=repr(metric),
            way_out="choose one of them, or another --loss",
        )
    return fitting[metric]


def name_of(metric: "str | OwnMetric") -> str:
    """Return what a metric is called: a name as it is, a function by its own."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


class _TopFive:
    """Share of answers whose label is among the five likeliest classes."""

    def __init__(self) -> None:
        self._right = self._count = 0.0

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        if outputs.shape[1] <= _TOP:
            raise OptionError(
                "--metric",
                expected="more than five classes for top-5",
                found=str(outputs.shape[1]),
                way_out="use accuracy",
            )
        known = truth != IGNORED
        picked = np.take_along_axis(outputs, np.where(known, truth, 0)[:, None], axis=1)
        counts = _counts(known, weights)
        self._right += float(((outputs > picked).sum(axis=1) < _TOP)[known] @ counts)
        self._count += float(counts.sum())

    def result(self) -> float | None:
        return self._right / self._count if self._count else None


class _Overlaps:
    """Of every class the answers that are right, given, and true; a mean over classes that occur of a ratio of them."""

    def __init__(self, task: Task, ratio: Callable[[Array, Array], Array]) -> None:
        self._task, self._ratio = task, ratio
        self._counts: Array | None = None  # right, given, true: float64 [3, C]

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        of = self._of_classes if self._task is Task.CROSS_ENTROPY else _of_signs
        counts = of(outputs, truth, weights)
        self._counts = counts if self._counts is None else self._counts + counts

    def _of_classes(self, outputs: Array, truth: Array, weights: Array | None) -> Array:
        known, classes = truth != IGNORED, outputs.shape[1]
        given, true = outputs.argmax(axis=1)[known], truth[known].astype(np.int64)
        counts = _counts(known, weights)
        parts = ((true, counts * (given == true)), (given, counts), (true, counts))
        return np.stack([np.bincount(each, weights=count, minlength=classes) for each, count in parts])

    def result(self) -> float | None:
        if self._counts is None:
            return None
        right, given, true = self._counts
        occur = given + true > 0
        return float(self._ratio(right[occur], (given + true)[occur]).mean()) if occur.any() else None


def _counts(known: Array, weights: Array | None) -> Array:
    """What each answer that has a label counts, float64 ``[answers]``."""
    return np.ones(int(known.sum())) if weights is None else weights[known]


def _of_signs(outputs: Array, truth: Array, weights: Array | None) -> Array:
    """Of every output, as a class of its own: [n, K, ...] -> float64 [3, K]."""
    counts = np.ones(truth.shape) if weights is None else weights
    given, true = (_by_output(each) for each in (outputs > 0, truth > 0.5))
    return np.stack([(each * _by_output(counts)).sum(axis=(0, 2)) for each in (given & true, given, true)])


def _by_output(array: Array) -> Array:
    """[n, K, ...] -> [n, K, positions]"""
    return array.reshape(len(array), array.shape[1] if array.ndim > 1 else 1, -1)


class _Explained:
    """Share of the variance of every target that is explained, 1 - sum (y - p)^2 / sum (y - mean y)^2; their mean.

    Targets that never vary are left out.
    """

    def __init__(self) -> None:
        self._origin: Array | None = None
        self._count = self._sum = self._squares = self._errors = np.zeros(0)

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        # [n, ...] -> [n, K]
        wanted, given = (each.reshape(len(each), -1).astype(np.float64) for each in (truth, outputs))
        counts = np.ones(wanted.shape) if weights is None else weights.reshape(wanted.shape)
        if self._origin is None:
            self._origin = wanted.mean(axis=0)  # what sums are taken about: targets may be far from zero
            self._count = self._sum = self._squares = self._errors = np.zeros(wanted.shape[1])
        self._count = self._count + counts.sum(axis=0)
        self._sum = self._sum + (counts * (wanted - self._origin)).sum(axis=0)
        self._squares = self._squares + (counts * np.square(wanted - self._origin)).sum(axis=0)
        self._errors = self._errors + (counts * np.square(wanted - given)).sum(axis=0)

    def result(self) -> float | None:
        if not self._count.any():
            return None
        spread = self._squares - np.square(self._sum) / np.maximum(self._count, np.finfo(np.float64).tiny)
        varies = spread > 1e-12 * np.maximum(self._squares, np.finfo(np.float64).tiny)
        return float((1 - self._errors[varies] / spread[varies]).mean()) if varies.any() else None


class _Mean:
    """A mean over answers of what a function gives for each, and a function of it."""

    def __init__(self, each: Callable[[Array, Array], Array], last: Callable[[float], float] = float) -> None:
        self._each, self._last = each, last
        self._sum = self._count = 0.0

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        # Numbers are never IGNORED: that is a class.
        known = truth != IGNORED if truth.dtype.kind in "iu" else np.ones(truth.shape, np.bool_)
        counts = _counts(known, weights)
        self._sum += float(self._each(outputs, truth)[known] @ counts)
        self._count += float(counts.sum())

    def result(self) -> float | None:
        return self._last(self._sum / self._count) if self._count else None


class _Own:
    """What a function says of all outputs and labels together."""

    def __init__(self, function: OwnMetric) -> None:
        self._function = function
        self._outputs: list[Array] = []
        self._truth: list[Array] = []

    def add(self, outputs: Array, truth: Array, weights: Array | None = None) -> None:
        self._outputs.append(outputs.astype(np.float32))
        self._truth.append(truth)

    def result(self) -> float | None:
        value = self._function(np.concatenate(self._outputs), np.concatenate(self._truth))
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise OptionError(
                f"--metric {name_of(self._function)}",
                expected="a finite number of outputs and labels",
                found=repr(value)[:80],
                way_out="return a number of which more is better",
            )
        return number


def _surprise(outputs: Array, truth: Array) -> Array:
    """Cross-entropy of every answer, whatever it is where there is no label."""
    known = truth != IGNORED
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(-np.take_along_axis(logarithms, np.where(known, truth, 0)[:, None], axis=1)[:, 0])


def _perplexity(surprise: float) -> float:
    return math.exp(min(surprise, 700.0))  # beyond it there is no number


def _f1(right: Array, both: Array) -> Array:
    """2 precision recall / (precision + recall), of right answers and the sum of given and true ones."""
    return np.asarray(2 * right / both)


def _iou(right: Array, both: Array) -> Array:
    """Intersection over union, likewise."""
    return np.asarray(right / (both - right))


def _figures(task: Task) -> dict[str, Figure]:
    """What says something of such outputs, by name."""
    if task is Task.MSE:
        return {
            "r2": Figure("r2", True, _Explained, is_share=True),
            "mae": Figure("mae", False, lambda: _Mean(lambda outputs, truth: np.abs(outputs - truth))),
        }
    ratios = {"f1": _f1, "mean-iou": _iou}
    overlaps = {
        name: Figure(name, True, partial(_Overlaps, task, ratio), is_share=True) for name, ratio in ratios.items()
    }
    if task is Task.BCE:
        return overlaps
    return {
        "top-5": Figure("top-5", True, _TopFive, is_share=True),
        **overlaps,
        "perplexity": Figure("perplexity", False, lambda: _Mean(_surprise, _perplexity)),
    }
