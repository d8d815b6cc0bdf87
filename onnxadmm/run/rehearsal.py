"""A few real steps of both trainings before the run, timed; nothing of them is kept."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Final

import numpy as np

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.settle import untimed
from onnxadmm.admm.solver import solve
from onnxadmm.admm.state import State
from onnxadmm.graph.model import Model
from onnxadmm.run.ground import STATISTICS_SAMPLES
from onnxadmm.run.trainings import Training
from onnxadmm.runtime.resident import Gauge
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.norm_restore import Network
from onnxadmm.train.trainer import OrtTrainer
from onnxadmm.train.workers.count import expected_seconds, worthwhile_workers

#: Steps that are timed behind the first, fewer where they are expected to take longer than this together, in seconds;
#: then as many more as take this share of the training, in seconds at least and
#: at most, but no more than a quarter of its steps: other work on the machine comes and goes.
_STEPS: Final = 4
_ENOUGH: Final = 20.0
_SHARE: Final = 0.02
_SECONDS: Final = (0.5, 4.0)
_MOST: Final = 4
#: Weights hardly move while steps are timed.
_RATE: Final = 1e-6
#: Batches of samples that are known already by which later epochs are timed.
_KNOWN: Final = 2
#: Seconds that a look at held-out data may take; of one that takes longer a part is taken, of so many samples at least.
_LOOK_SECONDS: Final = 10.0
_LEAST_LOOK: Final = 256
#: A step is a forward pass and two of the same size backward.
_PASSES: Final = 3

#: Gradients that are timed with nothing beside them.
_GRADIENTS: Final = 2
#: Cores of a machine that has as many as can be used.
_MANY: Final = 1 << 20


@dataclass(frozen=True)
class Pace:
    """How fast a training is, in seconds.

    Attributes:
        opening: until its first step: the training graph is built, workers start.
        step: one step, and what making its batch delays it; of several machines their share of it.
        look: what comes between: an iteration with its look at held-out data, or that at the end of an epoch.
        memory_bytes: estimate of what a step takes in all processes together.
        state_bytes: of a checkpoint.
        first_step: a step of the first epoch, where the teacher's answers or decoded pictures are kept for later ones;
            None: as any other.
        backward: of a step, what the loss and its gradient take.
        waiting: of a step, what the training waits for its batch.
        evaluation: of a look, what the held-out data take.
        details: what else was seen; None where nobody looked closer.
    """

    opening: float
    step: float
    look: float
    memory_bytes: int = 0
    state_bytes: int = 0
    first_step: float | None = None
    backward: float = 0.0
    waiting: float = 0.0
    evaluation: float = 0.0
    details: "Details | None" = None

    def seconds(self, *, steps: int, looks: int, first: int = 0) -> float:
        """Return what a training of so many steps and looks takes, the first of the steps on samples not yet seen."""
        slower = 0.0 if self.first_step is None else min(first, steps) * (self.first_step - self.step)
        return self.opening + steps * self.step + slower + looks * self.look

    @property
    def known(self) -> "Pace":
        """The same where all samples have been seen before."""
        return replace(self, first_step=None)


@dataclass(frozen=True)
class Details:
    """What is seen of a training where one looks closer.

    Attributes:
        peak_bytes: of memory that all processes together had; 0 where the system does not say.
        gradient: seconds of the loss and gradient of a batch with nothing beside it.
        workers: processes that share a batch.
        most_workers: as many would on a machine with any number of cores, each of them one part.
        weights_bytes: of all that trains.
    """

    peak_bytes: int
    gradient: float
    workers: int
    most_workers: int
    weights_bytes: int


@dataclass
class _Taken:
    """Steps that were taken, one after the other, in seconds.

    Attributes:
        whole: from one batch to the next.
        waited: of that for the batch.
        backward: of that in the trainer's ``backward``, in the mean.
        ended: when the last batch was handed over, by the clock.
        batch: the last one.
    """

    whole: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    backward: float = 0.0
    ended: float = 0.0
    batch: Batch | None = None

    @property
    def step(self) -> float:
        """The mean without the first, whose batch nobody made ahead."""
        return fmean(self.whole[1:] or self.whole)


def pace_of_pruning(
    training: Training, model: Model, problem: Problem, settings: Settings, *, gauge: Gauge | None = None
) -> tuple[Pace, KeepArray]:
    """Take a few steps and an iteration of the whole network; return also which units it would keep by now.

    Args:
        model: with its gates on activations open.
        settings: of the run.
        gauge: of this process's memory, where one looks closer; None: nobody does.

    Raises:
        DivergedError: the loss is not finite from the start.
    """
    start = time.perf_counter()
    if gauge is not None:
        gauge.reset()
    network = training.network(model)
    with training.trainer(network, epochs=settings.epochs, weight_decay=0.0, tells=False) as trainer:
        opening = time.perf_counter() - start
        restricted, kept = untimed(training.restricted(problem, model, trainer)), trainer.snapshot()
        sizes: list[int] = []
        looks: list[float] = []
        evaluations: list[float] = []
        guesses: list[KeepArray] = []
        tried = replace(settings, epochs=1, iterations_per_epoch=1, learning_rate=_RATE, divergence_floor=float("inf"))

        def steps(of: Training, count: int) -> _Taken:
            taken, looked = _Taken(), 0.0

            def keep(state: State) -> None:
                sizes.append(sum(array.nbytes for array in (*state.values(), *trainer.state().values())))

            def look(_: object) -> None:
                nonlocal looked
                begin = time.perf_counter()
                statistics, evaluation = _look(training, model, network, trainer, training.glance, step=taken.step)
                evaluations.append(evaluation)
                # What the rest of it would have taken.
                looked = statistics + evaluation - (time.perf_counter() - begin)

            before = trainer.spent
            with of.epochs() as batches:
                stream = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count())
                solution = solve(
                    trainer,
                    restricted,
                    batches=lambda epoch, first: _timed(itertools.islice(stream, count + 2), taken),
                    steps_per_epoch=count + 2,
                    settings=tried,
                    on_iteration=look,
                    on_state=keep,
                )
                ended = time.perf_counter()
            taken.backward = (trainer.spent - before) / (count + 2)
            looks.append(ended - taken.ended - taken.step + looked)
            guesses.append(solution.keep)
            trainer.restore(kept)
            return taken

        total = settings.epochs * training.steps_per_epoch
        first, later = _both(steps, training, trainer, total=total, known=False)
        pace = Pace(
            opening,
            later.step / training.machines,
            max(0.0, looks[-1]),
            trainer.expected_bytes,
            max(sizes),
            None if first is later else first.step / training.machines,
            later.backward,
            fmean(later.waited),
            evaluations[-1],
            None if gauge is None else _details(training, trainer, later.batch, gauge, epochs=settings.epochs),
        )
        return pace, guesses[-1]


def pace_of_retraining(
    training: Training, small: Model, *, epochs: int, known: bool = False, gauge: Gauge | None = None
) -> Pace:
    """Take a few steps of a small network, and look once at all held-out data.

    Args:
        small: about as small as pruning will leave it.
        epochs: of the run.
        known: whether all samples have been seen before it begins.
        gauge: as for ``pace_of_pruning``.
    """
    start = time.perf_counter()
    if gauge is not None:
        gauge.reset()
    network = training.network(small)
    with training.trainer(network, epochs=epochs, weight_decay=0.0, tells=False) as trainer:
        opening = time.perf_counter() - start

        def steps(of: Training, count: int) -> _Taken:
            taken, before = _Taken(), trainer.spent
            with of.epochs() as batches:
                stream = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count())
                for batch in _timed(itertools.islice(stream, count + 2), taken):
                    trainer.backward(batch)
                    trainer.update(_RATE)
            taken.backward = (trainer.spent - before) / (count + 2)
            return taken

        first, later = _both(steps, training, trainer, total=epochs * training.steps_per_epoch, known=known)
        held_out = training.held_out
        statistics, evaluation = _look(
            training, small, network, trainer, held_out, samples=STATISTICS_SAMPLES, step=later.step
        )
        # Weights now and at their best, and the two moments of the optimizer.
        kept = 4 * sum(array.nbytes for array in trainer.weights.values())
        return Pace(
            opening,
            later.step / training.machines,
            statistics + evaluation,
            trainer.expected_bytes,
            kept,
            None if first is later else first.step / training.machines,
            later.backward,
            fmean(later.waited),
            evaluation,
            None if gauge is None else _details(training, trainer, later.batch, gauge, epochs=epochs),
        )


def _details(
    training: Training, trainer: OrtTrainer, batch: Batch | None, gauge: Gauge, *, epochs: int
) -> Details | None:
    """Look closer at a training that has taken its steps."""
    if batch is None:
        return None
    peak, recipe = gauge.peak(), training.recipe
    spent: list[float] = []
    while len(spent) < _GRADIENTS and sum(spent) < _ENOUGH / 2:
        before = trainer.spent
        trainer.backward(batch)
        spent.append(trainer.spent - before)
    steps = epochs * training.steps_per_epoch
    return Details(
        peak,
        min(spent),
        trainer.workers,
        worthwhile_workers(trainer.artifacts, steps=steps, threads=recipe.threads, accumulate=1, cores=_MANY),
        sum(array.nbytes for array in trainer.weights.values()),
    )


def _both(
    steps: Callable[[Training, int], _Taken], training: Training, trainer: OrtTrainer, *, total: int, known: bool
) -> tuple[_Taken, _Taken]:
    """Take steps of the first epoch, and of those after it; the same ones where nothing is kept from one to the next.

    Args:
        total: steps of the training.
        known: whether all samples have been seen before it begins.
    """
    few = max(1, min(_STEPS, int(_ENOUGH * trainer.workers / max(expected_seconds(trainer.artifacts), 1e-6))))
    if not training.keeps:
        taken = _enough(lambda count: steps(training, count), few=few, total=total)
        return taken, taken
    seen = training.apart().of_known(_KNOWN)
    later = _enough(lambda count: steps(seen, count), few=few, total=total)
    if known:
        return later, later
    count = min(max(few, len(later.whole)), max(1, training.steps_per_epoch - 2))
    return steps(training.apart(), count), later


def _enough(steps: Callable[[int], _Taken], *, few: int, total: int) -> _Taken:
    """Take a few steps; more where the training has many."""
    taken = steps(few)
    least, most = _SECONDS
    more = min(total // _MOST, int(min(most, max(least, _SHARE * total * taken.step)) / max(taken.step, 1e-6)))
    return steps(more) if more > few else taken


def _look(
    training: Training,
    model: Model,
    network: Network,
    trainer: OrtTrainer,
    data: ArrayDataset,
    *,
    step: float,
    samples: int | None = None,
) -> tuple[float, float]:
    """Look at held-out data, or where that takes long at a part of them.

    Args:
        step: seconds of a training step, from which it is seen whether it takes long.
        samples: of which statistics are measured anew, where the network has some; None: as in pruning.

    Returns:
        Seconds of the statistics, and of all held-out data.
    """
    measured = training.statistics_samples(samples) if trainer.artifacts.statistics else 0
    few, some = data, samples
    expected = step * trainer.workers / (_PASSES * trainer.batch_size) * (len(data) + measured)
    if expected > _LOOK_SECONDS:
        share = _LOOK_SECONDS / expected
        few = data.take(np.arange(min(len(data), max(_LEAST_LOOK, int(share * len(data))))))
        some = int(share * measured)
    begin = time.perf_counter()
    looked_at = training.as_trained(model, network, trainer, samples=some)
    finished = time.perf_counter()
    training.metrics(looked_at, few)
    statistics = (finished - begin) * (measured / training.statistics_samples(some) if measured else 1)
    return statistics, (time.perf_counter() - finished) * len(data) / len(few)


def _timed(items: Iterable[Batch], taken: _Taken) -> Iterator[Batch]:
    """Go through batches; note how long each but the last was used, and how long the next one took to come."""
    iterator, handed = iter(items), 0.0
    while True:
        asked = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        now = time.perf_counter()
        if handed:
            taken.whole.append(now - handed)
            taken.waited.append(now - asked)
        handed = taken.ended = now
        taken.batch = item
        yield item
