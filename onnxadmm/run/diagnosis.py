"""What would bring the accuracy of the original up: usual preparations, orders of channels and classes, tried out."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.run.answers import Answers, answers_of, joined
from onnxadmm.run.trainings import Training
from onnxadmm.run.ways import Way, other_orders, usual_ways
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.prepare.signature import ModelInput

Array = NDArray[Any]

#: Samples that all ways are tried with, then those of them that did best; and how many these are.
_ROUNDS: Final = ((64, 6), (192, 3), (512, 1))
_BATCH: Final = 32
#: Seconds that trying takes, at most: of a first look, and where something is wrong.
GLANCE_SECONDS: Final = 10.0
SECONDS: Final = 60.0
#: What is worth a word: the share of right answers that a way gains, and that in standard errors.
WORTH: Final = 0.03
_ERRORS: Final = 3.0
#: Share of the answers to a class that agree with each other, where only the order of the classes is another, and
#: answers to a class in the mean without which they agree by chance.
_CONSISTENT: Final = 0.5
_FEWEST_OF_A_CLASS: Final = 4.0
#: Share of right answers that another order of the classes has to gain over the one that is given.
_WORTH_REORDERING: Final = 0.1
#: What an option more has to explain, in nats of the labels' likelihood; and what a rare way is behind, in accuracy.
_NATS_OF_AN_OPTION: Final = 2.0
_RARITY: Final = 0.02


@dataclass(frozen=True)
class Remedy:
    """What was found to help.

    Attributes:
        changes: what to give or to change, such as ``"with --mean 0.1307 --std 0.3081 (MNIST's)"``; all of it.
        accuracy: what the original then has.
        samples: how many of them were tried.
    """

    changes: tuple[str, ...]
    accuracy: float
    samples: int

    def __str__(self) -> str:
        return f"{' and '.join(self.changes)} it is right in {100 * self.accuracy:.1f} % of {self.samples} samples"


@dataclass
class _Trial:
    """One way, and what the original answered so far to samples that were prepared so."""

    way: Way
    data: ArrayDataset
    parts: list[Answers]

    @property
    def answers(self) -> Answers:
        return joined(self.parts)

    @property
    def count(self) -> int:
        return sum(len(part.shares) for part in self.parts)


def find_remedy(training: Training, predictor: Predictor, *, thorough: bool) -> Remedy | None:
    """Try what is usually wrong on some held-out samples, and return what brings the accuracy up most.

    Args:
        training: with class labels.
        predictor: of the original.
        thorough: try every way in every order of channels and pixels, in up to a minute; otherwise every way in the
            order that is stored, and other orders as the data were given, in some seconds.

    Returns:
        What changes least and is most likely, of all that does best within chance; None where nothing that was tried
        is clearly better than what was given.
    """
    deadline = time.perf_counter() + (SECONDS if thorough else GLANCE_SECONDS)
    given, *others = _trials(training, thorough=thorough)
    tried = [given]
    for count, most in _ROUNDS:
        answered = [trial for trial in (given, *others) if _extended(trial, predictor, count, deadline)]
        if given.count < min(count, len(given.data)):
            break  # no time is left, and nothing to compare with
        tried = answered
        others = sorted((trial for trial in tried if trial is not given), key=_rank, reverse=True)[:most]
    found = [(trial, remedy) for trial in tried if trial.parts and (remedy := _remedy(trial, given)) is not None]
    best = max((remedy.accuracy for _, remedy in found), default=0.0)
    near = [(trial, remedy) for trial, remedy in found if remedy.accuracy >= best - 0.5 / math.sqrt(remedy.samples)]
    likely = min(near, key=lambda pair: (len(pair[1].changes), pair[0].way.rare, _surprise(pair[0])), default=None)
    return None if likely is None else likely[1]


def _trials(training: Training, *, thorough: bool) -> list[_Trial]:
    """Every way that is tried, the given one first; only that where nothing says how the inputs are prepared."""
    data = training.held_out
    # In a fixed random order: whatever is sorted by class has all of them among the first ones.
    chosen = data.order[np.random.default_rng(0).permutation(len(data))[: _ROUNDS[-1][0]]]
    labels = None if data.labels is None else data.labels[chosen]
    read = {name: np.asarray(array[chosen]) for name, array in data.inputs.items()}
    order = np.arange(len(chosen), dtype=np.int64)
    some = replace(data, inputs=read, labels=labels, order=order, contents=None)
    given = Way("as given", replace(training.preprocessing, augment=""))
    (name, stored), *more = read.items()
    transform = some.transforms[name]
    if more or transform.dtype.kind != "f" or stored.ndim < 2 or not np.isfinite(stored).all():
        return [_Trial(given, some, [])]
    axis = ModelInput(name, stored.shape, transform.dtype, batched=True).channel_axis
    first, *ways = usual_ways(stored, axis, training.preprocessing)
    ways = list({str(way.options): way for way in reversed(ways)}.values())[::-1]  # the first one of each
    if thorough:
        ways += [other for way in (first, *ways) for other in other_orders(way, stored, axis)]
    else:
        ways += other_orders(first, stored, axis)
    prepared = []
    for way in ways:
        samples = way.samples(stored, axis)
        prepared.append(
            replace(some, inputs={name: samples}, transforms={name: way.transform(samples, axis, transform.dtype)})
        )
    return [_Trial(first, some, []), *(_Trial(way, each, []) for way, each in zip(ways, prepared, strict=True))]


def _extended(trial: _Trial, predictor: Predictor, count: int, deadline: float) -> bool:
    """Try a way on more samples, up to ``count`` of them, and tell whether there was time for it."""
    while trial.count < min(count, len(trial.data)):
        if time.perf_counter() > deadline:
            return False
        some = np.arange(trial.count, min(trial.count + _BATCH, count, len(trial.data)))
        trial.parts.append(answers_of(predictor, trial.data.take(some), batch_size=_BATCH))
    return True


def _rank(trial: _Trial) -> tuple[float, float]:
    """More is better: right answers, in whatever order of the classes; among equals how well labels are explained."""
    answers = trial.answers
    return max(answers.accuracy, _reordered(answers)[0]) - _RARITY * trial.way.rare, -_surprise(trial)


def _surprise(trial: _Trial) -> float:
    """How unlikely labels and options of a way are, in nats: of ways that do equally well the least one is right."""
    answers = trial.answers
    return answers.loss * answers.total + _NATS_OF_AN_OPTION * len(trial.way.options)


def _remedy(trial: _Trial, given: _Trial) -> Remedy | None:
    """What a way changes, where that is clearly better than what was given."""
    answers, before = trial.answers, given.answers
    changes = _changes(trial.way, given.way)
    accuracy, reordered = _reordered(answers)
    number = min(len(answers.shares), len(before.shares))
    if accuracy >= answers.accuracy + _WORTH_REORDERING:
        changes.append(reordered)
        gain, error = accuracy - before.accuracy, 0.5 / math.sqrt(number)
    else:
        accuracy = answers.accuracy
        gains = answers.shares[:number] - before.shares[:number]
        gains = gains[np.isfinite(gains)]
        gain = float(gains.mean()) if len(gains) else 0.0
        error = float(gains.std()) / math.sqrt(max(1, len(gains)))
    if not changes or gain < max(WORTH, _ERRORS * error):
        return None
    return Remedy(tuple(changes), accuracy, number)


def _changes(way: Way, given: Way) -> list[str]:
    changes = []
    if way.options != given.options:
        asked = [f"{option} {value}" for option, value in way.options.items()]
        without = [option for option in given.options if option not in way.options]
        words = [f"with {' '.join(asked)}"] if asked else []
        words += [f"without {' and '.join(without)}"] if without else []
        changes.append(f"{' and '.join(words)} ({way.name})")
    if way.order is not None:
        changes.append(f"with {way.order.words}")
    return changes


def _reordered(answers: Answers) -> tuple[float, str]:
    """The accuracy where the classes are numbered otherwise, and in words how; 0 where no other order fits."""
    found = other_order(answers)
    right, words = 0, ""
    if found is not None:
        right = sum(
            int(answers.counts[(answers.truth == one) & (answers.given == other)].sum()) for one, other in found
        )
        words = in_words(found)
    if len(answers.present) > 2:  # of two, one is the other less one
        for shift, name in ((1, "less"), (-1, "more")):
            shifted = int(answers.counts[answers.truth - answers.given == shift].sum())
            if shifted >= max(right, answers.total / 2):
                right, words = shifted, f"with labels that are one {name}"
    return right / max(1, answers.total), words


def other_order(answers: Answers) -> Sequence[tuple[int, int]] | None:
    """Return each label with the class that is answered to it, where these are the classes in another order."""
    present = answers.present
    if answers.total < _FEWEST_OF_A_CLASS * len(present):
        return None
    found = []
    for each in present:
        usual, share = answers.usual(int(each))
        if share <= _CONSISTENT:
            return None
        found.append((int(each), usual))
    if len({other for _, other in found}) < len(found) or all(one == other for one, other in found):
        return None
    return found


def in_words(order: Sequence[tuple[int, int]]) -> str:
    """Say an order of classes: which labels the network sees as which others."""
    pairs = [f"{one} as {other}" for one, other in order if one != other]
    return f"with another order of the classes (it sees {', '.join(pairs[:8])}{'...' if len(pairs) > 8 else ''})"
