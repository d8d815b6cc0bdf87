"""Whether the original does as well on the data as it should: data prepared otherwise ruin a run in silence."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.run.trainings import Training
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import IGNORED, Task
from onnxadmm.train.metrics import log_softmax

Array = NDArray[Any]

#: Held-out samples that are looked at.
_GLANCE: Final = 1000
_FEWEST_ANSWERS: Final = 20
#: Times the accuracy of guessing that is still near it.
_NEAR: Final = 1.5
#: How much surer than right a sound network may be.
_OVERCONFIDENT: Final = 0.25
#: Share of the answers to a class that agree with each other, where only the order of the classes is another.
_CONSISTENT: Final = 0.7
_CHECK: Final = (
    "check --scale, --mean and --std, the order of the colour channels, and that of the classes, against what it was "
    "trained with"
)


def find_doubts(training: Training, model: Model) -> Iterator[str]:
    """Say what the original does with held-out data and should not; nothing where it does well, or has no labels.

    Args:
        model: as given.
    """
    if not training.held_out.has_labels or training.loss.task is Task.BCE:
        return
    predictor = Predictor(training.shown(model), task=training.loss.task, threads=training.recipe.threads)
    glance = training.held_out.take(np.arange(min(_GLANCE, len(training.held_out))))
    logits, labels = [], []
    for batch in glance.batches(training.recipe.batch_size):
        logits.append(predictor.logits(dict(batch.inputs)).astype(np.float64))
        labels.append(np.asarray(batch.labels))
    scores, truth = np.concatenate(logits), np.concatenate(labels)
    if training.loss.task is Task.MSE:
        yield from _about_numbers(scores, truth)
    else:
        # [N, C, ...] -> [N, ..., C] -> [answers, C]
        rows = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
        known = truth.reshape(-1) != IGNORED
        yield from _about_classes(rows[known], truth.reshape(-1)[known])


def _about_numbers(outputs: Array, targets: Array) -> Iterator[str]:
    error = float(((outputs - targets) ** 2).mean())
    spread = float(((targets - targets.mean(axis=0)) ** 2).mean())
    if len(targets) >= _FEWEST_ANSWERS and error >= spread > 0:
        yield (
            f"The original has a mean square error of {error:.4g} on held-out data, no less than their mean would have "
            f"({spread:.4g}): {_CHECK.replace('that of the classes', 'the unit and order of the targets')}."
        )


def _about_classes(scores: Array, truth: Array) -> Iterator[str]:
    if len(truth) < _FEWEST_ANSWERS or len(np.unique(truth)) < 2:
        return
    answers = scores.argmax(axis=1)
    right = answers == truth
    accuracy = float(right.mean())
    present = np.unique(truth)
    # Of every class alike: where most samples are of one class, answering always that one is guessing too.
    balanced = float(np.mean([right[truth == each].mean() for each in present]))
    chance = 1.0 / len(present)
    near = min(_NEAR * chance, (1.0 + chance) / 2 - 0.15)
    if balanced < near:
        yield (
            f"The original is right in {100 * accuracy:.1f} % of held-out answers, little more than guessing would be "
            f"({100 * chance:.3g} % of every class): {_CHECK}.{_other_order(answers, truth)}"
        )
        return
    sure = float(np.exp(log_softmax(scores).max(axis=1)).mean())
    if sure - accuracy > _OVERCONFIDENT:
        yield (
            f"The original is {100 * sure:.0f} % sure of its held-out answers on average and right in "
            f"{100 * accuracy:.1f} %, which may mean other data than it was trained on: {_CHECK}."
            f"{_other_order(answers, truth)}"
        )


def _other_order(answers: Array, truth: Array) -> str:
    """A sentence where the answers fit the labels in another order of the classes."""
    found: dict[int, int] = {}
    for each in np.unique(truth):
        values, counts = np.unique(answers[truth == each], return_counts=True)
        if counts.max() < _CONSISTENT * counts.sum():
            return ""
        found[int(each)] = int(values[counts.argmax()])
    if len(set(found.values())) < len(found) or all(one == other for one, other in found.items()):
        return ""
    pairs = ", ".join(f"{one} as {other}" for one, other in list(found.items())[:8] if one != other)
    return f" Its answers fit another order of the classes: it sees {pairs}."
