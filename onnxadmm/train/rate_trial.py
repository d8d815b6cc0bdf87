"""The highest learning rate that a network bears, found by trying on the network itself.

A rate that suits a small convolutional network undoes a large transformer in ten steps, and no table of architectures
is long enough to say which is which. What a rate does shows in a short training of the usual form: a rise, half a
cosine down, and the network is worse than it was, or it is not.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.schedule import learning_rate_at
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.retrain import WARM_UP, take_steps
from onnxadmm.train.trainer import OrtTrainer

#: Of the usual rate, what is tried, one after the other.
_SHARES: Final = (1.0, 0.3, 0.1, 0.03, 0.01)
#: Steps of a training below which none is tried: it would take too much of it.
_SHORT: Final = 1000
#: Part of the steps of a training that a trial takes, and steps at the most. A network with batch statistics needs some
#: tens of steps to come back from where the rise has led it.
_PART: Final = 1 / 20
_MOST: Final = 200
#: Batches, and samples in them, whose mean loss can be held against another.
_WINDOW: Final = 10
_SAMPLES: Final = 512


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        rate: the largest that the network bears; the smallest that was tried where it bears none.
        borne: whether the network bears it.
        refused: rates that it does not bear, and the loss that each led to, inf where it got too large on the way.
    """

    rate: float
    borne: bool
    refused: tuple[tuple[float, float], ...]


def trial_steps(training: int) -> int:
    """Return the steps that a trial of one rate takes before a training of so many; 0 where nothing is tried."""
    return min(_MOST, math.ceil(_PART * training)) if training >= _SHORT else 0


def window(batch_size: int) -> int:
    """Return of how many batches a mean loss is one of enough samples to be held against another."""
    return max(_WINDOW, math.ceil(_SAMPLES / batch_size))


def find_rate(
    trainer: OrtTrainer,
    batches: Callable[[], Iterator[Batch]],
    *,
    peak: float,
    steps: int,
    loss: Callable[[], float],
    most: float,
    limit: float,
    zeros: Mapping[str, NDArray[np.bool_]],
) -> Trial:
    """Find the largest rate, from ``peak`` down, after a short training at which the loss is at most ``most``.

    Args:
        trainer: before its first step; left as it was, but for its gradients and logits.
        batches: gives the same batches each time, ``steps`` of them at least.
        peak: highest rate of the training.
        steps: of the trial of one rate.
        loss: on held-out data, of what the trainer holds.
        limit: of the mean training loss of each ``window`` of steps on the way.
        zeros: entries that stay exactly zero, as for ``take_steps``.
    """
    weights, refused = trainer.snapshot(), list[tuple[float, float]]()
    # A trainer that has taken no step has moments of zero: nothing of their size need be kept meanwhile.
    begun = {name: np.broadcast_to(np.zeros((), array.dtype), array.shape) for name, array in trainer.state().items()}
    for share in _SHARES:
        rate = share * peak
        rates = [learning_rate_at((step + 0.5) / steps, peak=rate, warm_up=WARM_UP) for step in range(steps)]
        stayed = _stays(trainer, batches(), rates, limit=limit, zeros=zeros)
        found = loss() if stayed else math.inf
        trainer.restore(weights)
        trainer.load(begun)
        if found <= most:
            return Trial(rate, True, tuple(refused))
        refused.append((rate, found))
    return Trial(rate, False, tuple(refused))


def _stays(
    trainer: OrtTrainer,
    batches: Iterator[Batch],
    rates: Sequence[float],
    *,
    limit: float,
    zeros: Mapping[str, NDArray[np.bool_]],
) -> bool:
    """Take steps; tell whether the mean loss of no window of them, or of what is left behind the last, is too large."""
    size = window(trainer.batch_size)
    for start in range(0, len(rates), size):
        some = rates[start : start + size]
        mean = take_steps(trainer, batches, some, zeros=zeros) / len(some)
        enough = len(some) == size or start == 0
        if not math.isfinite(mean) or (enough and mean > limit):
            return False
    return True
