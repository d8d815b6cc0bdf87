"""Which units a run prunes: those that may go, but for groups whose cut would make the model larger."""

from collections.abc import MutableSequence

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.rank import rank_by_budget
from onnxadmm.report.words import plural
from onnxadmm.rewrite.file_size import file_size
from onnxadmm.rewrite.growth import leave_out_growing
from onnxadmm.run.choices import Choices
from onnxadmm.units.units import Units, find_units

_NAMED = 5


def paying_units(
    model: Model,
    choices: Choices,
    budget: Budget | None,
    *,
    original_bytes: int,
    single_file: bool,
    notes: MutableSequence[str],
) -> tuple[Units, tuple[str, ...]]:
    """Find the units, and what is left out: as asked for, or as its cut would make the model larger.

    What training will choose nobody knows yet; a plan by magnitude under the same budget stands for it.

    Args:
        model: as it is pruned.
        original_bytes: of the file that was given.
        notes: what is left out is added here, as a sentence.

    Raises:
        NothingToPruneError: no group is left.
        BudgetError: the budget cannot be met.
    """

    def find(ignore: tuple[str, ...]) -> Units:
        return find_units(model, inexact=choices.inexact, features=choices.features, ignore=ignore)

    def choose(units: Units) -> NDArray[np.bool_]:
        assert budget is not None  # else this is not called
        file = file_size(model, units, original=original_bytes, single_file=single_file)
        counted = budget.before_measuring()
        return rank_by_budget(
            model, units, counted, by="magnitude", limits=choices.limits, seed=choices.seed, file=file
        )

    if budget is None or not budget.amounts or inline(model) is model:
        return find(choices.ignore), choices.ignore
    units, _, ignored = leave_out_growing(model, choices.ignore, find=find, choose=choose)
    left = [name for name in ignored if name not in choices.ignore]
    if left:
        notes.append(
            f"left whole, since what their cut has to write out needs more room than it saves: {', '.join(left)}"
        )
    return units, ignored


def about_written_out(given: Model, ready: Model) -> list[str]:
    """Say which weights that the graph computes have become constants; nothing where none has."""
    before = {value.name for node in given.ir.graph for value in node.outputs if node.op_type != "Constant"}
    names = [name for name in ready.ir.graph.initializers if name in before]
    if not names:
        return []
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return [f"{plural(len(names), 'weight')} that the graph computes written out as constants, to be cut: {shown}"]
