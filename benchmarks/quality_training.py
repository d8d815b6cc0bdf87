"""The ways in which benchmarks/quality.py retrains: as ``compress`` does, and what was tried beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.norm_restore import Network, is_deep
from onnxadmm.train.optimizer import AdamW
from onnxadmm.train.retrain import WARM_UP
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]
#: A training at its rate, the small network and what was pruned: the best state on held-out images.
Retraining = Callable[[Training, Model, Pruned], Model]

#: A step of Nesterov momentum is about so many times one of AdamW, of the best rates of each.
NESTEROV_RATE: Final = 16.0
#: Largest norm of its gradients, and its decay in the gradient, as PyTorch has it.
CLIP, DECAY, MOMENTUM = 1.0, 5e-4, 0.9
#: What an average of weights keeps of itself at each step, at most.
AVERAGED: Final = 0.999
#: Momentum of Muon, and the root mean square of its steps as a share of the rate, which is about AdamW's.
MUON_MOMENTUM, MUON_SIZE = 0.95, 0.2
#: A kernel with at most so many input channels reads an image, or one channel each.
FIRST_CHANNELS: Final = 4
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
    with _course(training, small) as course:
        trainer = course.trainer
        average, taken = trainer.snapshot(), 0

        def step(rate: float) -> None:
            nonlocal taken
            trainer.update(rate)
            taken += 1
            share = np.float32(1.0 - min(AVERAGED, (1 + taken) / (10 + taken)))
            for name, weights in trainer.weights.items():
                average[name] += share * (weights - average[name])

        return course.best(step, shown=average)


def muon(training: Training, small: Model, pruned: Pruned) -> Model:
    """Momentum made orthogonal (Jordan et al., 2024, "Muon"), with the rates of AdamW, which takes all but matrices.

    Scaled to the root mean square that AdamW's steps have, as Liu et al. (2025, "Muon is scalable for LLM training")
    do it. A kernel is the matrix of its filters. Kernels of the first layer, and those of depthwise convolutions, are
    AdamW's.
    """
    decay = training.recipe.retrain_weight_decay
    with _course(training, small) as course:
        trainer = course.trainer
        matrices = {name for name, array in trainer.weights.items() if _is_matrix(array)}
        sums = {name: np.zeros_like(trainer.weights[name]) for name in matrices}
        others = {
            name: AdamW(array.size, weight_decay=decay)
            for name, array in trainer.weights.items()
            if name not in matrices
        }

        def step(rate: float) -> None:
            for name, momentum in sums.items():
                weights, gradients = trainer.weights[name], trainer.gradients[name]
                momentum *= np.float32(MUON_MOMENTUM)
                momentum += np.float32(1 - MUON_MOMENTUM) * gradients
                ahead = np.float32(1 - MUON_MOMENTUM) * gradients + np.float32(MUON_MOMENTUM) * momentum
                matrix = ahead.reshape(len(ahead), -1)
                direction = np.float32(MUON_SIZE * max(matrix.shape) ** 0.5) * _orthogonal(matrix)
                weights *= np.float32(1 - rate * decay)
                weights -= np.float32(rate) * direction.reshape(weights.shape)
            for name, optimizer in others.items():
                optimizer.step(trainer.weights[name].reshape(-1), trainer.gradients[name].reshape(-1), rate)

        return course.best(step)


def mixed(training: Training, small: Model, pruned: Pruned) -> Model:
    """AdamW, taught by the original alone; half of the images are mixed with another (Zhang et al., 2018, alpha 1)."""
    teacher, loss = training.teacher, replace(training.loss, distillation=1.0)
    assert teacher is not None
    alone = replace(training, loss=loss, recipe=replace(training.recipe, distillation=1.0))

    def batches(epoch: int) -> Iterator[Batch]:
        generator = np.random.default_rng([training.seed, ORDERS, epoch])
        size, augment = training.recipe.batch_size, bool(training.preprocessing.augment)
        for batch in training.samples.batches(size, seed=epoch, shuffle=True, augment=augment, drop_last=True):
            ((name, images),) = batch.inputs.items()
            share = generator.beta(1.0, 1.0, (len(images), 1, 1, 1)).astype(np.float32)
            share[generator.random(len(images)) < 0.5] = 1
            blend = share * images + (1 - share) * images[generator.permutation(len(images))]
            yield teacher.label(replace(batch, inputs={name: blend}, augmented=True))

    with _course(alone, small) as course:
        return course.best(course.trainer.update, batches=batches)


@dataclass(frozen=True)
class _Course:
    """A training of a small network in other ways than ``compress`` has.

    Attributes:
        network: the small one, as it trains.
        trainer: of it.
        epochs: passes over the data.
    """

    training: Training
    small: Model
    network: Network
    trainer: OrtTrainer
    epochs: int

    def best(
        self,
        step: Callable[[float], None],
        *,
        shown: Mapping[str, FloatArray] | None = None,
        batches: Callable[[int], Iterator[Batch]] | None = None,
    ) -> Model:
        """Train with the usual rates; return the best state on held-out images.

        Args:
            step: changes weights by the gradients, given the rate.
            shown: weights that are judged and kept, live; None: the trainer's.
            batches: of an epoch; None: the usual ones.
        """
        training, trainer, small = self.training, self.trainer, self.small
        steps, taken = self.epochs * training.steps_per_epoch, 0
        peak = training.recipe.retraining_rate(deep=is_deep(small))
        best, best_score = small, training.metrics(small, training.held_out).goodness
        with training.epochs() as usual_batches:
            for epoch in range(self.epochs):
                for batch in usual_batches(ORDERS + epoch, 0) if batches is None else batches(epoch):
                    trainer.backward(batch)
                    step(learning_rate_at((taken + 0.5) / steps, peak=peak, warm_up=WARM_UP))
                    taken += 1
                latest = trainer.snapshot()
                trainer.restore(latest if shown is None else shown)
                model = with_constants(small, training.weights(self.network, trainer))
                trainer.restore(latest)
                if (score := training.metrics(model, training.held_out).goodness) >= best_score:
                    best, best_score = model, score
        return best


@contextmanager
def _course(training: Training, small: Model) -> Iterator[_Course]:
    """Begin such a training."""
    epochs = training.recipe.retraining_epochs(steps_per_epoch=training.steps_per_epoch)
    network = training.network(small)
    with training.trainer(network, epochs=epochs, weight_decay=training.recipe.retrain_weight_decay) as trainer:
        yield _Course(training, small, network, trainer, epochs)


def _is_matrix(array: FloatArray) -> bool:
    return array.ndim > 1 and len(array) > 1 and array.shape[1] > FIRST_CHANNELS


def _orthogonal(matrix: FloatArray) -> FloatArray:
    """About the nearest orthogonal matrix: five steps of the Newton-Schulz iteration of Jordan et al. (2024)."""
    first, second, third = 3.4445, -4.7750, 2.0315
    turned = matrix.shape[0] > matrix.shape[1]
    found: FloatArray = matrix.T if turned else matrix
    found = found / np.float32(np.linalg.norm(found) + 1e-7)
    for _ in range(5):
        gram: FloatArray = found @ found.T
        turn: FloatArray = np.float32(second) * gram + np.float32(third) * (gram @ gram)
        found = np.float32(first) * found + turn @ found
    return found.T if turned else found


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
