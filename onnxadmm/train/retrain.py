"""Training the small network: connection zeros held exactly, the best state on held-out data kept."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.schedule import learning_rate_at
from onnxadmm.admm.state import State, fill, number, part, under
from onnxadmm.errors import DivergedError
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]

#: Share of a training in which its learning rate rises.
WARM_UP: Final = 0.1


@dataclass(frozen=True)
class Epoch:
    """What one epoch of retraining left behind.

    Attributes:
        epoch: number, from 1.
        loss: mean training loss.
        score: of the held-out data, more is better.
        learning_rate: of the last step.
    """

    epoch: int
    loss: float
    score: float
    learning_rate: float


def retrain(
    trainer: OrtTrainer,
    *,
    zeros: Mapping[str, NDArray[np.bool_]],
    batches: Callable[[int], Iterable[Batch]],
    steps_per_epoch: int,
    epochs: int,
    peak: float,
    score: Callable[[Mapping[str, FloatArray]], float],
    on_epoch: Callable[[Epoch], None],
    on_state: Callable[[State], None] | None = None,
    resume: State | None = None,
    together: Callable[[int, Sequence[float]], float] | None = None,
) -> int:
    """Train with AdamW and a cosine learning rate; leave in the trainer the weights that scored best.

    Returns:
        The epoch that left them, from 1; 0 where none was better than the weights before.

    Args:
        trainer: holds the small network.
        zeros: entries that stay exactly zero, bool of each weight's shape.
        batches: batches of an epoch, given its number from 0.
        steps_per_epoch: how many of them make an epoch.
        epochs: passes over the data; 0 changes nothing.
        peak: highest learning rate.
        score: how good weights are on held-out data, more is better; called before the first and after every epoch.
        on_epoch: told about every epoch.
        on_state: given after every epoch all that the rest depends on; the arrays are live.
        resume: such a state of an equal run, to go on from as if nothing had happened.
        together: takes the steps of an epoch, given its number and their learning rates, in place of this process,
            leaves in the trainer where they have led, and returns the sum of their losses; ``batches`` are not read
            then.

    Raises:
        CheckpointError: ``resume`` is not the state of such a run.
        DivergedError: the loss became NaN or infinite; the trainer holds the best weights.
    """
    _apply_zeros(trainer, zeros)
    best = trainer.snapshot()
    if resume is None:
        best_score, best_epoch, done = (score(trainer.weights) if epochs else 0.0), 0, 0
    else:
        best_score, best_epoch, done = _load(resume, trainer, best)
    steps = epochs * steps_per_epoch
    for epoch in range(done, epochs):
        progress = ((epoch * steps_per_epoch + step + 0.5) / steps for step in range(steps_per_epoch))
        rates = [learning_rate_at(each, peak=peak, warm_up=WARM_UP) for each in progress]
        total = take_steps(trainer, batches(epoch), rates, zeros=zeros) if together is None else together(epoch, rates)
        if not math.isfinite(total):
            trainer.restore(best)
            raise DivergedError(
                f"retraining, epoch {epoch + 1}",
                expected="a finite loss",
                found=str(total),
                way_out="lower --retrain-learning-rate",
            )
        current = score(trainer.weights)
        on_epoch(Epoch(epoch + 1, total / steps_per_epoch, current, rates[-1]))
        if current >= best_score:
            best, best_score, best_epoch = trainer.snapshot(), current, epoch + 1
        if on_state is not None:
            on_state(_state(trainer, best, best_score, best_epoch, done=epoch + 1))
    trainer.restore(best)
    return best_epoch


def take_steps(
    trainer: OrtTrainer,
    batches: Iterable[Batch],
    rates: Sequence[float],
    *,
    zeros: Mapping[str, NDArray[np.bool_]],
    pull: Callable[[], None] | None = None,
) -> float:
    """Take a step for every batch; return the sum of the losses, or the first that is not finite.

    Args:
        batches: one for each rate; no more are taken.
        rates: learning rate of each step.
        zeros: entries that stay exactly zero.
        pull: adds to the trainer's gradients whatever else draws the weights.
    """
    total = 0.0
    for rate, batch in zip(rates, batches, strict=False):  # the rates come first: no batch is lost
        loss = trainer.backward(batch)
        if not math.isfinite(loss):
            return loss
        if pull is not None:
            pull()
        trainer.update(rate)
        _apply_zeros(trainer, zeros)
        total += loss
    return total


def _state(
    trainer: OrtTrainer, best: Mapping[str, FloatArray], best_score: float, best_epoch: int, *, done: int
) -> State:
    return {
        **under("weights", trainer.weights),
        **under("trainer", trainer.state()),
        **under("best", best),
        "best_score": np.array(best_score),
        "best_epoch": np.array(float(best_epoch)),
        "epochs": np.array(float(done)),
    }


def _load(state: State, trainer: OrtTrainer, best: Mapping[str, FloatArray]) -> tuple[float, int, int]:
    """Overwrite trainer and best weights; return the best score, its epoch, and the epochs that are over."""
    for name, array in trainer.weights.items():
        fill(array, state, f"weights/{name}")
    for name, array in best.items():
        fill(array, state, f"best/{name}")
    trainer.load(part(state, "trainer"))
    return number(state, "best_score"), int(number(state, "best_epoch")), int(number(state, "epochs"))


def _apply_zeros(trainer: OrtTrainer, zeros: Mapping[str, NDArray[np.bool_]]) -> None:
    for name, where in zeros.items():
        trainer.weights[name][where] = 0.0
