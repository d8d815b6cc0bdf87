"""The ways in which benchmarks/quality.py retrains: as ``compress`` does, and what was tried beside it."""

from collections.abc import Callable
from typing import Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.kept import KEPT, retraining_at
from benchmarks.runs import forget
from onnxadmm.admm.schedule import learning_rate_at
from onnxadmm.admm.state import State
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model
from onnxadmm.run.trainings import Pruned, Training
from onnxadmm.train.norm_restore import is_deep
from onnxadmm.train.retrain import WARM_UP

FloatArray = NDArray[np.float32]
#: A training at its rate, the small network and what was pruned: the best state on held-out images.
Retraining = Callable[[Training, Model, Pruned], Model]

#: A step of Nesterov momentum is about so many times one of AdamW, of the best rates of each.
NESTEROV_RATE: Final = 16.0
#: Largest norm of its gradients, and its decay in the gradient, as PyTorch has it.
CLIP, DECAY, MOMENTUM = 1.0, 5e-4, 0.9
#: What an average of weights keeps of itself at each step, at most.
AVERAGED: Final = 0.999
#: Epochs of retraining draw orders of their own, as those of ``compress``.
ORDERS: Final = 1_000_000


def usual(training: Training, small: Model, pruned: Pruned) -> Model:
    """AdamW, as ``compress`` retrains."""
    rate = training.recipe.retrain_learning_rate
    assert rate is not None  # the queue says which
    with KEPT.training(retraining_at(rate)) as (keep_state, resume):
        return training.retrain(small, pruned, keep_state=keep_state, resume=resume)


def nesterov(training: Training, small: Model, pruned: Pruned) -> Model:
    """Gradient descent with Nesterov momentum and clipped gradients."""
    with patch("onnxadmm.train.trainer.AdamW", Nesterov):
        return training.retrain(small, pruned, keep_state=forget, resume={})


def averaged(training: Training, small: Model, pruned: Pruned) -> Model:
    """AdamW with the same rates; judged after every epoch, and kept, is an exponential average of the weights."""
    recipe, length = training.recipe, training.steps_per_epoch
    epochs = recipe.retraining_epochs(steps_per_epoch=length)
    network, taken, peak = training.network(small), 0, recipe.retraining_rate(deep=is_deep(small))
    best, best_score = small, training.metrics(small, training.held_out).goodness
    with (
        training.trainer(network, epochs=epochs, weight_decay=recipe.retrain_weight_decay) as trainer,
        training.epochs() as batches,
    ):
        average = trainer.snapshot()
        for epoch in range(epochs):
            for batch in batches(ORDERS + epoch, 0):
                progress = (taken + 0.5) / (epochs * length)
                trainer.backward(batch)
                trainer.update(learning_rate_at(progress, peak=peak, warm_up=WARM_UP))
                taken += 1
                share = np.float32(1.0 - min(AVERAGED, (1 + taken) / (10 + taken)))
                for name, weights in trainer.weights.items():
                    average[name] += share * (weights - average[name])
            latest = trainer.snapshot()
            trainer.restore(average)
            model = with_constants(small, training.weights(network, trainer))
            trainer.restore(latest)
            if (score := training.metrics(model, training.held_out).goodness) >= best_score:
                best, best_score = model, score
    return best


class Nesterov:
    """Nesterov momentum (Sutskever et al., 2013, as PyTorch computes it), in the place of AdamW."""

    def __init__(self, size: int, *, weight_decay: float) -> None:
        self._sum = np.zeros(size, np.float32)

    def state(self) -> State:
        """Nothing goes on from here."""
        return {}

    def step(self, weights: FloatArray, gradients: FloatArray, learning_rate: float) -> None:
        """Update ``weights`` in place."""
        gradients = gradients + np.float32(DECAY) * weights
        gradients *= np.float32(min(1.0, CLIP / max(float(np.linalg.norm(gradients)), 1e-30)))
        self._sum *= np.float32(MOMENTUM)
        self._sum += gradients
        weights -= np.float32(NESTEROV_RATE * learning_rate) * (gradients + np.float32(MOMENTUM) * self._sum)
