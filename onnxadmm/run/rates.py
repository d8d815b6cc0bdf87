"""The learning rate of a training: what was asked for, or the usual one as far as the network bears it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

    def look() -> _Look:
        return _look(ground, ground.as_trained(model, network, trainer))

    before = look()
    most = before.loss + _LOST * max(0.0, before.silent - before.loss)
    limit = _AWAY * _first_losses(ground, trainer, batches())
    trial = find_rate(
        trainer, batches, peak=peak, steps=steps, loss=lambda: look().loss, most=most, limit=limit, zeros=zeros
    )
    if trial.refused:
        tried = ", ".join(f"{_in_words(found)} at {rate:g}" for rate, found in trial.refused)
        told = f"{steps} steps took a held-out loss of {before.loss:.3g} to {tried}"
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


@dataclass(frozen=True)
class _Look:
    """A look at some held-out samples.

    Attributes:
        loss: mean loss, of labels where there are some.
        silent: that of the better of two answers that say nothing of a sample: zeros, and the mean of all answers.
    """

    loss: float
    silent: float


def _look(ground: Ground, model: Model) -> _Look:
    predictor, own = ground.predictor(model), Meter(ground.loss)
    found: list[tuple[FloatArray, Batch]] = []
    for batch in ground.glance.batches(ground.recipe.batch_size):
        whole = ground.teacher.label(batch) if batch.labels is None and ground.teacher is not None else batch
        found.append((predictor.logits(dict(whole.inputs)), whole))
    mean = np.mean([logits.mean(axis=0, dtype=np.float64) for logits, _ in found], axis=0).astype(np.float32)
    silent = []
    for answer in (np.zeros_like(mean), mean):
        meter = Meter(ground.loss)
        for logits, batch in found:
            meter.add(np.broadcast_to(answer, logits.shape), batch.labels, batch.teacher, batch.weights)
        silent.append(meter.result().loss)
    for logits, batch in found:
        own.add(logits, batch.labels, batch.teacher, batch.weights)
    return _Look(own.result().loss, min(silent))


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
