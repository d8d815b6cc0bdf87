"""A few real steps of both trainings before the run, timed; nothing of them is kept."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Final, TypeVar

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.settle import untimed
from onnxadmm.admm.solver import solve
from onnxadmm.admm.state import State
from onnxadmm.graph.model import Model
from onnxadmm.run.trainings import STATISTICS_SAMPLES, Training

#: Steps that are timed behind the first; then as many more as take this share of the training, in seconds at least and
#: at most, but no more than a quarter of its steps: other work on the machine comes and goes.
_STEPS: Final = 4
_SHARE: Final = 0.02
_SECONDS: Final = (0.5, 4.0)
_MOST: Final = 4
#: Weights hardly move while steps are timed.
_RATE: Final = 1e-6

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How fast a training is, in seconds.

    Attributes:
        opening: until its first step: the training graph is built, workers start.
        step: one step, and what making its batch delays it; of several machines their share of it.
        look: what comes between: an iteration with its look at held-out data, or that at the end of an epoch.
        memory_bytes: estimate of what a step takes in all processes together.
        state_bytes: of a checkpoint.
    """

    opening: float
    step: float
    look: float
    memory_bytes: int = 0
    state_bytes: int = 0

    def seconds(self, *, steps: int, looks: int) -> float:
        """Return what a training of so many steps and looks takes."""
        return self.opening + steps * self.step + looks * self.look


def pace_of_pruning(training: Training, model: Model, problem: Problem, settings: Settings) -> tuple[Pace, KeepArray]:
    """Take a few steps and an iteration of the whole network; return also which units it would keep by now.

    Args:
        model: with its gates on activations open.
        settings: of the run.

    Raises:
        DivergedError: the loss is not finite from the start.
    """
    start = time.perf_counter()
    network = training.network(model)
    with (
        training.trainer(network, epochs=settings.epochs, weight_decay=0.0, tells=False) as trainer,
        training.epochs() as batches,
    ):
        opening = time.perf_counter() - start
        restricted, kept = untimed(training.restricted(problem, model, trainer)), trainer.snapshot()
        sizes: list[int] = []
        looks: list[float] = []
        guesses: list[KeepArray] = []
        stream = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count())
        tried = replace(settings, epochs=1, iterations_per_epoch=1, learning_rate=_RATE, divergence_floor=float("inf"))

        def steps(count: int) -> list[float]:
            asked: list[float] = []

            def keep(state: State) -> None:
                sizes.append(sum(array.nbytes for array in (*state.values(), *trainer.state().values())))

            def look(_: object) -> None:
                training.look(model, network, trainer, training.glance)

            solution = solve(
                trainer,
                restricted,
                batches=lambda epoch, first: _timed(itertools.islice(stream, count + 2), asked),
                steps_per_epoch=count + 2,
                settings=tried,
                on_iteration=look,
                on_state=keep,
            )
            taken = [later - earlier for earlier, later in pairwise(asked)]
            looks.append(time.perf_counter() - asked[-1] - fmean(taken[1:] or taken))
            guesses.append(solution.keep)
            trainer.restore(kept)
            return taken

        step = _mean_of(steps, total=settings.epochs * training.steps_per_epoch)
        return Pace(
            opening, step / training.machines, max(0.0, looks[-1]), trainer.expected_bytes, max(sizes)
        ), guesses[-1]


def pace_of_retraining(training: Training, small: Model, *, epochs: int) -> Pace:
    """Take a few steps of a small network, and look once at all held-out data.

    Args:
        small: about as small as pruning will leave it.
        epochs: of the run.
    """
    start = time.perf_counter()
    network = training.network(small)
    with ExitStack() as stack:
        trainer = stack.enter_context(training.trainer(network, epochs=epochs, weight_decay=0.0, tells=False))
        batches = stack.enter_context(training.epochs())
        opening = time.perf_counter() - start
        stream = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count())

        def steps(count: int) -> list[float]:
            asked: list[float] = []
            for batch in _timed(itertools.islice(stream, count + 1), asked):
                trainer.backward(batch)
                trainer.update(_RATE)
            return [later - earlier for earlier, later in pairwise(asked)]

        step = _mean_of(steps, total=epochs * training.steps_per_epoch)
        start = time.perf_counter()
        training.look(small, network, trainer, training.held_out, samples=STATISTICS_SAMPLES)
        look = time.perf_counter() - start
        # Weights now and at their best, and the two moments of the optimizer.
        kept = 4 * sum(array.nbytes for array in trainer.weights.values())
        return Pace(opening, step / training.machines, look, trainer.expected_bytes, kept)


def _mean_of(steps: Callable[[int], list[float]], *, total: int) -> float:
    """Return the mean of some steps but for the first; of more where the training has many.

    Args:
        total: steps of the training.
    """
    taken = steps(_STEPS)
    step = fmean(taken[1:] or taken)
    least, most = _SECONDS
    more = min(total // _MOST, int(min(most, max(least, _SHARE * total * step)) / max(step, 1e-6)))
    return fmean(steps(more)[1:]) if more > _STEPS else step


def _timed(items: Iterable[T], asked: list[float]) -> Iterator[T]:
    """Go through items; note when each of them, and the end, is asked for."""
    for item in items:
        asked.append(time.perf_counter())
        yield item
    asked.append(time.perf_counter())
