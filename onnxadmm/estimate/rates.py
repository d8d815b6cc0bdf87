"""What one step is made of on this machine: reading, the teacher, the gradient and what comes between, each timed."""

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import numpy as np

from onnxadmm.estimate.scaling import StepParts
from onnxadmm.graph.model import Model
from onnxadmm.run.rehearsal import Details, Pace
from onnxadmm.run.trainings import Training
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.workers.parts import add_up

#: Batches that are read, behind the first, and seconds after which no further one is.
_BATCHES: Final = 8
_SECONDS: Final = 4.0
#: Gradients of one process alone.
_ALONE: Final = 2


@dataclass(frozen=True)
class Reading:
    """Seconds of a batch until it is what the model reads, and of the teacher's answers to it.

    Attributes:
        reading: with all cores where pictures are decoded.
        teacher: of one core; 0 where nobody asks it.
        decodes: whether pictures are decoded when a batch needs them.
    """

    reading: float
    teacher: float
    decodes: bool

    def parts(self, pace: Pace, *, answered: bool = False) -> StepParts:
        """Return what a step of a training is made of.

        Args:
            pace: of the training, with details.
            answered: whether the teacher's answers are known.
        """
        details = details_of(pace)
        adding, workers = adding_seconds(details.weights_bytes), details.workers
        return StepParts(
            gradient=max(0.0, details.gradient - (workers - 1) * adding) * workers,
            adding=adding,
            between=max(0.0, pace.step - pace.waiting - pace.backward),
            teacher=0.0 if answered else self.teacher,
            converting=0.0 if self.decodes else self.reading,
            decoding=self.reading * usable_cores() if self.decodes else 0.0,
        )


def reading_of(training: Training) -> Reading:
    """Read some batches with nothing beside it, and ask the teacher about one."""
    batches = training.samples.batches(
        training.recipe.batch_size,
        shuffle=True,
        augment=bool(training.preprocessing.augment),
        drop_last=True,
    )
    begin = time.perf_counter()
    batch = next(batches)
    first, taken, begin = time.perf_counter() - begin, 0, time.perf_counter()
    for _ in islice(batches, _BATCHES):
        taken += 1
        if time.perf_counter() - begin > _SECONDS:
            break
    seconds = (time.perf_counter() - begin) / taken if taken else first
    teacher = 0.0
    if training.teacher is not None and training.loss.needs_teacher:
        student = training.teacher.apart()
        begin = time.perf_counter()
        student.label(batch)
        teacher = (time.perf_counter() - begin) * training.beside
    return Reading(seconds, teacher, training.samples.decodes)


def adding_seconds(size: int) -> float:
    """Return the seconds that it takes to add one gradient of so many bytes to another."""
    total, other = np.zeros(max(1, size // 4), np.float32), np.zeros(max(1, size // 4), np.float32)
    add_up(total, [other])
    begin = time.perf_counter()
    add_up(total, [other])
    return time.perf_counter() - begin


def speed_up(training: Training, model: Model, pace: Pace) -> float:
    """Return how many times as fast all processes of a step are as one of them, by one that works alone.

    Args:
        model: as it trains, its gates open.
        pace: of its training, with details.
    """
    details = details_of(pace)
    if details.workers == 1:
        return 1.0
    recipe = training.recipe
    part = max(1, recipe.batch_size // (details.workers * recipe.accumulate))
    alone = replace(training, recipe=replace(recipe, batch_size=part, workers=1, accumulate=1))
    whole = training.first_batch()
    if training.teacher is not None and training.loss.needs_teacher:
        whole = training.teacher.apart().label(whole)
    batch = _part(whole, part)
    with alone.trainer(training.network(model), epochs=1, weight_decay=0.0, tells=False) as trainer:
        trainer.backward(batch)
        spent = []
        for _ in range(_ALONE):
            before = trainer.spent
            trainer.backward(batch)
            spent.append(trainer.spent - before)
    return min(spent) * recipe.batch_size / part / details.gradient


def _part(batch: Batch, size: int) -> Batch:
    def take(array: Any) -> Any:
        return None if array is None else np.ascontiguousarray(array[:size])

    return replace(
        batch,
        inputs={name: take(array) for name, array in batch.inputs.items()},
        labels=take(batch.labels),
        teacher=take(batch.teacher),
        weights=take(batch.weights),
        indices=take(batch.indices),
        count=size,
    )


def details_of(pace: Pace) -> Details:
    """Return what was seen closer of a training that was looked at with a gauge."""
    assert pace.details is not None  # it was measured with a gauge
    return pace.details
