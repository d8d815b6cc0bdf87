"""Whether the original does as well on the data as it should: data prepared otherwise ruin a run in silence."""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Share, parse_share
from onnxadmm.report.words import percent
from onnxadmm.run.answers import Answers, answers_of
from onnxadmm.run.diagnosis import WORTH, Remedy, find_remedy
from onnxadmm.run.trainings import Training
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Task
from onnxadmm.train.metrics import Metrics

Array = NDArray[Any]

#: Held-out samples that are looked at.
_GLANCE: Final = 1000
_FEWEST_ANSWERS: Final = 20
#: Times the accuracy of guessing that is still near it.
_NEAR: Final = 1.5
#: How much surer than right a sound network may be.
_OVERCONFIDENT: Final = 0.25
_CHECK: Final = (
    "check --scale, --mean and --std, the order of the colour channels, and that of the classes, against what it was "
    "trained with"
)
_GO_ON: Final = "--expect-accuracy 0 goes on all the same"


def first_look(training: Training, model: Model, *, expected: float | None) -> Metrics | None:
    """Measure the original on held-out data, show that, and warn of what it should not do with them.

    Args:
        training: its journal is told.
        model: as given.
        expected: least accuracy that the original must have, a share in [0, 1]; None: more than guessing would be right
            in. At 0 nothing is refused.

    Returns:
        Loss and accuracy on all held-out data; None where they have no labels.

    Raises:
        DataError: the original does worse than that; what would bring its accuracy up is named, if it was found.
        OptionError: an accuracy is expected, and there is none.
    """
    if expected and not training.held_out.has_labels:
        raise _no_accuracy("data without labels", "give labels, or leave it out")
    if not training.held_out.has_labels:
        return None
    measured = training.metrics(model, training.held_out)
    if expected and measured.accuracy is None:
        raise _no_accuracy(f"--loss {training.loss.task.value}", "leave it out")
    shown = f"loss of {measured.loss:.4g}" if measured.accuracy is None else f"accuracy of {percent(measured.accuracy)}"
    if measured.figure is not None:
        shown = "{} of {:.4f}".format(*measured.figure)
    training.journal.progress.note(f"The original has a held-out {shown} on {measured.count:,} samples.")
    if expected and measured.accuracy is not None and measured.accuracy < expected:
        raise DataError(
            "the original on held-out data",
            expected=f"an accuracy of at least {percent(expected)} (--expect-accuracy)",
            found=f"{percent(measured.accuracy)} of {measured.count:,} samples",
            way_out=_way_out(_diagnosed(training, model), "a lower --expect-accuracy accepts it, and 0 anything"),
        )
    for sentence in find_doubts(training, model, refuses=expected is None):
        training.journal.warn(sentence)
    return measured


def parse_accuracy(share: Share) -> float:
    """Return the accuracy that is expected, written as ``0.9`` or ``"90%"``.

    Raises:
        OptionError: it is no share.
    """
    value = parse_share(share, option="--expect-accuracy")
    if not 0 <= value <= 1:
        raise OptionError(
            "--expect-accuracy", expected="a share from 0 to 1", found=str(share), way_out="write e.g. 0.9 or 90%"
        )
    return value


def find_doubts(training: Training, model: Model, *, refuses: bool = False) -> Iterator[str]:
    """Say what the original does with held-out data and should not; nothing where it does well, or has no labels.

    Args:
        model: as given.
        refuses: refuse data on which it is hardly better than guessing, instead of saying so.

    Raises:
        DataError: it is, and they are refused.
    """
    if not training.held_out.has_labels or training.loss.task is Task.BCE:
        return
    predictor = training.predictor(model)
    glance = training.held_out.some(_GLANCE)
    if training.loss.task is Task.MSE:
        outputs, targets = [], []
        for batch in glance.batches(training.recipe.batch_size):
            outputs.append(predictor.logits(dict(batch.inputs)).astype(np.float64))
            targets.append(np.asarray(batch.labels))
        yield from _about_numbers(np.concatenate(outputs), np.concatenate(targets))
    else:
        answers = answers_of(predictor, glance, batch_size=training.recipe.batch_size)
        yield from _about_classes(answers, training, predictor, refuses=refuses)


def _no_accuracy(found: str, way_out: str) -> OptionError:
    return OptionError(
        "--expect-accuracy", expected="labelled classes to measure it with", found=found, way_out=way_out
    )


def _about_numbers(outputs: Array, targets: Array) -> Iterator[str]:
    error = float(((outputs - targets) ** 2).mean())
    spread = float(((targets - targets.mean(axis=0)) ** 2).mean())
    if len(targets) >= _FEWEST_ANSWERS and error >= spread > 0:
        yield (
            f"The original has a mean square error of {error:.4g} on held-out data, no less than their mean would have "
            f"({spread:.4g}): {_CHECK.replace('that of the classes', 'the unit and order of the targets')}."
        )


def _about_classes(answers: Answers, training: Training, predictor: Predictor, *, refuses: bool) -> Iterator[str]:
    if answers.total < _FEWEST_ANSWERS or len(answers.present) < 2:
        return
    right, chance = 100 * answers.accuracy, 1.0 / len(answers.present)
    near = min(_NEAR * chance, (1.0 + chance) / 2 - 0.15)
    balanced = answers.balanced
    if balanced < near:
        remedy = find_remedy(training, predictor, thorough=True)
        # Few answers may come out badly by chance.
        if refuses and balanced + math.sqrt(balanced * (1 - balanced) / answers.total) < near:
            raise DataError(
                "the original on held-out data",
                expected=f"more right answers than guessing gives, {100 * chance:.3g} % of every class",
                found=f"{right:.1f} % of {answers.total:,}",
                way_out=_way_out(remedy, _GO_ON),
            )
        yield (
            f"The original is right in {right:.1f} % of held-out answers, little more than guessing would be "
            f"({100 * chance:.3g} % of every class): {_CHECK}.{_said(remedy)}"
        )
        return
    if answers.sureness - answers.accuracy > _OVERCONFIDENT:
        yield (
            f"The original is {100 * answers.sureness:.0f} % sure of its held-out answers on average and right in "
            f"{right:.1f} %, which may mean other data than it was trained on: {_CHECK}."
            f"{_said(find_remedy(training, predictor, thorough=True))}"
        )
        return
    remedy = find_remedy(training, predictor, thorough=False) if answers.accuracy < 1 - WORTH else None
    if remedy is not None:
        remedy = find_remedy(training, predictor, thorough=True) or remedy  # something else may be wrong as well
        yield f"The original is right in {right:.1f} % of held-out answers, and could be in more.{_said(remedy)}"


def _diagnosed(training: Training, model: Model) -> Remedy | None:
    classes = training.loss.task is Task.CROSS_ENTROPY
    return find_remedy(training, training.predictor(model), thorough=True) if classes else None


def _said(remedy: Remedy | None) -> str:
    sentence = "" if remedy is None else str(remedy)
    return f" {sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _way_out(remedy: Remedy | None, go_on: str) -> str:
    if remedy is None:
        return f"no usual scale, mean, std, order of channels or of classes that was tried helps: {_CHECK}; {go_on}"
    return f"{remedy}; {go_on}"
