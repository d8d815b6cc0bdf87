"""The learning rate of a training: what was asked for, or the usual one as far as the network bears it."""

import math
from collections.abc import Iterator, Mapping
from itertools import count, islice
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.run.ground import Ground
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.metrics import Meter, sample_losses
from onnxadmm.train.norm_restore import Network
from onnxadmm.train.rate_trial import find_rate, trial_steps, window
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]
_Answers = list[tuple[FloatArray, Batch]]

#: Of what a network knows, how much it may lose in a trial: of the way from its loss to that of saying nothing.
_LOST: Final = 0.05
#: How many times worse than before, or than saying nothing, a network may be on the way.
_AWAY: Final = 2.0
#: Trials draw orders of the samples of their own.
_ORDERS: Final = 4_000_000


def bearable_rate(
    ground: Ground,
    model: Model,
    network: Network,
    trainer: OrtTrainer,
    *,
    peak: float,
    epochs: int,
    option: str,
    zeros: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> float:
    """Return the usual rate of a training, or less where the network does not bear it, which the journal is told of.

    Args:
        model: that trains.
        network: in the form that trains.
        trainer: of it, which has taken no step; left as it is but for gradients and logits.
        peak: the usual rate.
        epochs: of the training. One that is short takes the usual rate untried.
        option: that gives the rate.
        zeros: entries that stay exactly zero.
    """
    steps = trial_steps(epochs * ground.steps_per_epoch)
    if not steps:
        return peak

    def batches() -> Iterator[Batch]:
        for epoch in count(_ORDERS):
            yield from ground.made(epoch, 0)

    def answers() -> _Answers:
        return _answers(ground, ground.as_trained(model, network, trainer))

    found = answers()
    before = _loss(ground, found)
    most = before + _LOST * max(0.0, _silent_loss(ground, found) - before)
    limit = _AWAY * _first_losses(ground, trainer, batches())
    trial = find_rate(
        trainer,
        batches,
        peak=peak,
        steps=steps,
        loss=lambda: _loss(ground, answers()),
        most=most,
        limit=limit,
        zeros=zeros,
    )
    if trial.refused:
        tried = ", ".join(f"{_in_words(loss)} at {rate:g}" for rate, loss in trial.refused)
        told = f"{steps} steps took a held-out loss of {before:.3g} to {tried}"
        if trial.borne:
            ground.journal.say(
                f"The highest learning rate is {trial.rate:g} in place of {peak:g}: {told}. {option} gives another."
            )
        else:
            ground.journal.warn(
                f"The network bears no learning rate that was tried, and trains at {trial.rate:g}: {told}. Look at the "
                f"scale of the data (--scale, --mean, --std), take a larger --batch-size, or give {option}."
            )
    return trial.rate


def tried_as_well(steps: int, looks: int, *, tries: bool) -> tuple[int, int]:
    """Return steps and looks of a training with those of a trial of its usual rate, which most networks bear.

    Args:
        tries: whether it tries a rate, which it does not where one was given.
    """
    tried = trial_steps(steps) if tries else 0
    return steps + tried, looks + (2 if tried else 0)


def _answers(ground: Ground, model: Model) -> _Answers:
    """Return the logits of a model for some held-out samples, batch by batch, and what they are held against."""
    predictor = ground.predictor(model)
    found: _Answers = []
    for batch in ground.glance.batches(ground.recipe.batch_size):
        whole = ground.teacher.label(batch) if batch.labels is None and ground.teacher is not None else batch
        found.append((predictor.logits(dict(whole.inputs)), whole))
    return found


def _loss(ground: Ground, answers: _Answers, *, always: FloatArray | None = None) -> float:
    """Return the mean loss, of labels where there are some; of one and the same answer to all where that is given."""
    meter = Meter(ground.loss)
    for logits, batch in answers:
        given = logits if always is None else np.broadcast_to(always, logits.shape)
        meter.add(given, batch.labels, batch.teacher, batch.weights)
    return meter.result().loss


def _silent_loss(ground: Ground, answers: _Answers) -> float:
    """Return the loss of the better of two answers that say nothing of a sample: zeros, and the mean of all answers."""
    mean = np.mean([logits.mean(axis=0, dtype=np.float64) for logits, _ in answers], axis=0).astype(np.float32)
    return min(_loss(ground, answers, always=each) for each in (np.zeros_like(mean), mean))


def _first_losses(ground: Ground, trainer: OrtTrainer, batches: Iterator[Batch]) -> float:
    """The mean training loss of the first batches, of the network as it is or of zeros, whichever is larger."""
    own = silent = 0.0
    some = window(trainer.batch_size)
    for batch in islice(batches, some):
        own += trainer.backward(batch) / some
        zeros = np.zeros(trainer.logits.shape)
        silent += float(sample_losses(zeros, batch.labels, batch.teacher, ground.loss, batch.weights).mean()) / some
    return max(own, silent)


def _in_words(loss: float) -> str:
    return f"{loss:.3g}" if math.isfinite(loss) else "far away"
