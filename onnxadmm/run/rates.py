"""The learning rate of a training: what was asked for, or the usual one as far as the network bears it."""

import math
from collections.abc import Iterator, Mapping
from itertools import count
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.run.ground import Ground
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.metrics import Meter, sample_losses
from onnxadmm.train.norm_restore import Network
from onnxadmm.train.rate_trial import find_rate, trial_steps
from onnxadmm.train.trainer import OrtTrainer

#: Of what a network knows, how much it may lose in a trial: of the way from its loss to that of saying nothing.
_LOST: Final = 0.05
#: How many times worse than one that says nothing a network may be on the way.
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
        trainer: of it, left as it is but for gradients and logits.
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

    def loss() -> float:
        return ground.look(model, network, trainer, ground.glance).loss

    before, first = loss(), next(batches())
    begun = trainer.backward(first)
    silence = np.zeros(trainer.logits.shape)
    limit = _AWAY * max(begun, float(sample_losses(silence, first.labels, first.teacher, ground.loss).mean()))
    silent = _silent_loss(ground, silence.shape[1:])
    most = before + _LOST * max(0.0, silent - before)
    trial = find_rate(trainer, batches, peak=peak, steps=steps, loss=loss, most=most, limit=limit, zeros=zeros)
    if trial.refused:
        tried = ", ".join(f"{'far away' if math.isinf(found) else f'{found:.3g}'} at {rate:g}"
                          for rate, found in trial.refused)  # fmt: skip
        ground.journal.say(
            f"The highest learning rate is {trial.rate:g} in place of {peak:g}: {steps} steps took the held-out loss "
            f"from {before:.3g} to {tried}. {option} gives another."
        )
    return trial.rate


def tried_as_well(steps: int, looks: int, *, given: float | None) -> tuple[int, int]:
    """Return steps and looks of a training with those of a trial of its usual rate, which most networks bear.

    Args:
        given: the rate that was asked for, which is not tried; None: the usual one.
    """
    tried = trial_steps(steps) if given is None else 0
    return steps + tried, looks + (2 if tried else 0)


def _silent_loss(ground: Ground, shape: tuple[int, ...]) -> float:
    """The loss, as a look measures it, of logits that are all zero; ``shape`` is that of one sample's."""
    meter = Meter(ground.loss)
    for batch in ground.glance.batches(ground.recipe.batch_size):
        given = ground.teacher.label(batch) if batch.labels is None and ground.teacher is not None else batch
        size = len(next(array for array in (given.labels, given.teacher) if array is not None))
        meter.add(np.zeros((size, *shape), np.float32), given.labels, given.teacher, given.weights)
    return meter.result().loss
