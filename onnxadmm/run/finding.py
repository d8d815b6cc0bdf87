"""What a run works on: the model made ready, its units, and the problem that the budget makes of them."""

from collections.abc import Mapping
from typing import NamedTuple

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.selection import refuse_unreachable
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.graph.simplify import simplify
from onnxadmm.latency.cost import PLANS, LatencyCost, latency_for
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import state_problem
from onnxadmm.rewrite.file_size import file_size
from onnxadmm.run.choices import Choices
from onnxadmm.run.ending import Ending
from onnxadmm.run.journal import Journal
from onnxadmm.run.paying import about_written_out, paying_units
from onnxadmm.units.columns import about_columns, with_columns
from onnxadmm.units.removable import frees_less
from onnxadmm.units.units import Units


class Ready(NamedTuple):
    """A model as it is pruned and trained, and whether it was simplified for that."""

    model: Model
    simplified: bool


class Analysis(NamedTuple):
    """A ready model with its functions written out, what may go of it, and the patterns that kept something."""

    model: Model
    units: Units
    ignored: tuple[str, ...]


def make_ready(model: Model, choices: Choices, journal: Journal) -> Ready:
    """Simplify a model, where that is asked for and frees as much as before."""
    if not choices.simplified:
        return Ready(model, False)
    result = simplify(model)
    if result.changed and frees_less(result.model, model, inexact=choices.inexact):
        journal.notes.append("not simplified, since fewer parameters could go afterwards")
        return Ready(model, False)
    journal.notes.append(result.note)
    return Ready(result.model, True)


def analyse(ready: Model, given: Model, choices: Choices, ending: Ending, journal: Journal) -> Analysis:
    """Find the units of a model.

    Args:
        ready: the model as it is pruned and trained; columns that may go by themselves are given Gathers.
        given: the original.
    """
    ready = with_columns(ready, features=choices.features, inexact=choices.inexact)
    units, ignored = paying_units(
        ready,
        choices,
        choices.goal,
        original_bytes=given.file_bytes,
        single_file=ending.single_file,
        notes=journal.notes,
    )
    if choices.features:
        journal.say(about_columns(units))
    cut = {name for name, axes in units.axes.items() if any(axis is not None for axis in axes)}
    written_out = inline(ready, cut=cut)  # trained weights travel back by name, those of functions too
    journal.notes += about_written_out(ready, written_out)
    return Analysis(written_out, units, ignored)


def state(
    ready: Model,
    units: Units,
    given: Model,
    choices: Choices,
    ending: Ending,
    *,
    latency: LatencyCost | None,
) -> Problem:
    """State the problem, and refuse it where it cannot be solved.

    Raises:
        BudgetError: the budget cannot be met.
    """
    file = file_size(ready, units, original=given.file_bytes, single_file=ending.single_file)
    problem = state_problem(
        ready,
        units,
        choices.goal,
        choices.limits,
        targets=choices.targets,
        connection_targets=choices.connection_targets,
        unit_share=choices.unit_share,
        file=file,
        latency=latency,
    )
    # Channels follow single columns: the fewest columns are met however they are spread over the channels.
    refuse_unreachable(problem, score=units.followers.spread(units.count))
    return problem


def measure_latency(
    ready: Model,
    units: Units,
    budget: Budget,
    choices: Choices,
    ending: Ending,
    journal: Journal,
    *,
    inputs: Mapping[str, object],
) -> LatencyCost:
    """Time plans of a model, of which its latency without any of the units follows.

    Args:
        inputs: values of inputs that stay the same for every sample.
    """
    timing = ending.timing
    with journal.stage("measure latency", total=PLANS):
        found = latency_for(
            ready,
            units,
            budget,
            choices.limits,
            threads=None if timing is None else timing.threads,
            seed=choices.seed,
            inputs=inputs,
            on_plan=journal.progress.advance,
        )
    journal.say(found.describe())
    return found
