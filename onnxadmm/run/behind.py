"""What comes behind the choice of units beside retraining, in seconds: as they are foreseen, from what was measured."""

from dataclasses import replace
from typing import Final

import numpy as np

from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.selection import select
from onnxadmm.admm.settle import untimed
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.expect import expected_work, measured_speed
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.model import Model
from onnxadmm.plan.rank import score
from onnxadmm.report.report import StageTime
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.ending import Ending
from onnxadmm.run.in_bytes import BATCH, RANGE_SAMPLES
from onnxadmm.run.measure import seconds_of_timing
from onnxadmm.run.refits import REFIT_SAMPLES, feeds_of
from onnxadmm.run.trainings import Training
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.units.units import Units

#: The stage that tries whether the original can be put into bytes, where that is asked for.
TRYING_BYTES: Final = "try bytes"


def stages_behind(
    training: Training, model: Model, ending: Ending, *, small: float, whole: float
) -> tuple[StageTime, ...]:
    """Return what the other forms of the result, its figures and its timing take.

    Args:
        small, whole: seconds of a look of the small network, and of the original, at all held-out data.
    """
    held = max(1, len(training.held_out))
    tested = 0.0 if training.test is None else len(training.test) / held
    # In bytes: the ranges of so many batches, and a look before and after; in 16 bits: a look at both.
    batches = -(-min(RANGE_SAMPLES, len(training.samples)) // BATCH)
    tried = training.journal.seconds().get(TRYING_BYTES, 0.0)  # with a single batch
    in_bytes = tried + (batches - 1) * small * BATCH / held + 2 * small
    forms = (("quantise", ending.int8, in_bytes), ("store in 16 bits", ending.fp16, 2 * small))
    columns = 1 + ending.int8 + ending.fp16
    return (
        *(StageTime(name, seconds) for name, asked, seconds in forms if asked),
        # All models on the test data, the small ones on held-out data: those of the original are known.
        StageTime("measure", whole * tested + columns * small * (1 + tested)),
        StageTime("latency", seconds_of_timing(model, ending.timing)),
    )


def seconds_of_refit(training: Training, model: Model, units: Units, *, small: float) -> float:
    """Return what the refit between pruning and retraining takes.

    Args:
        model: the original, without gates on activations.
        small: seconds of a look of the small network at all held-out data: two are compared.
    """
    network = Network(model, units)
    effort = replace(EFFORTS["normal"], threads=usable_cores())
    count = min(REFIT_SAMPLES, len(training.samples))
    batch = feeds_of(network, training.samples.take(np.arange(min(BATCH, count))))[0]
    batches = count / len(next(iter(batch.values())))
    speed = measured_speed(model, batch, batches=batches, threads=effort.threads)
    work = expected_work(network, (), effort, speed, samples=count, shown=count)
    return work.seconds + 2 * small


def guessed(model: Model, units: Units, problem: Problem) -> Model:
    """Return a network about as small as the budget leaves it, chosen by magnitude.

    Raises:
        BudgetError: the budget cannot be met.
    """
    return shrink(model, units, guessed_units(model, units, problem))


def guessed_units(model: Model, units: Units, problem: Problem) -> KeepArray:
    """Return the units of such a network, bool ``[units.count]``.

    Raises:
        BudgetError: the budget cannot be met.
    """
    return select(score(model, units, by="magnitude", seed=0), untimed(problem))
