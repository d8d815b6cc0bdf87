"""Several costs with a limit each as one cost with one limit, and the refusal of limits that cannot be met."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.ladder import Ladder, keep_counts
from onnxadmm.admm.problem import CostModel, KeepArray, MeasuredCost, Problem
from onnxadmm.errors import BudgetError

#: How much more the fullest limit weighs in marginal costs than one that is less full: this power of their fullness.
_SHARPNESS = 32
_MOST_NAMED = 5


@dataclass(frozen=True)
class Bound:
    """One cost and the most that it may be.

    Attributes:
        name: for messages, such as ``"--macs 0.1"``.
        cost: what is counted.
        limit: most that ``cost.total`` may be.
        measured: the cost, where it is one that is measured; its marginal costs are slopes over several units.
        unit: of the cost, for messages.
        aim: the limit as a share of what was asked for, where it is kept below that.
    """

    name: str
    cost: CostModel
    limit: float
    measured: MeasuredCost | None = None
    unit: str = ""
    aim: float = 1.0

    def told(self, cost: float) -> str:
        """A cost, or the limit, on the scale of what was asked for."""
        return f"{cost / self.aim:,.6g}{self.unit and ' '}{self.unit}"


class Bounds:
    """The cost of the fullest of some bounds, in the unit of the first: what that would cost, were it as full.

    So all bounds are met where this cost is at most the limit of the first one, and a budget that falls to that limit
    leads all of them there together. A single bound costs what it says.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self.bounds = tuple(bounds)
        self.limit = self.bounds[0].limit

    def total(self, keep: KeepArray) -> float:
        """Return the largest cost of ``keep``, bool ``[unit_count]``, relative to its limit, times the first limit."""
        totals = [bound.cost.total(keep) for bound in self.bounds]
        if len(totals) == 1:
            return totals[0]
        fullest = max(total * (self.limit / bound.limit) for total, bound in zip(totals, self.bounds, strict=True))
        exceeded = any(total > bound.limit for total, bound in zip(totals, self.bounds, strict=True))
        # Rounding hides no excess.
        return max(fullest, float(np.nextafter(self.limit, np.inf))) if exceeded else min(fullest, self.limit)

    def marginal(self, keep: KeepArray) -> NDArray[np.float64]:
        """Return what each unit adds, where bounds that are nearly as full as the fullest count nearly as much.

        This is the slope of the power mean of the costs, float64 ``[unit_count]``: that of the largest alone would turn
        from one bound to another between two linearisations.
        """
        fullness = np.array([bound.cost.total(keep) / bound.limit for bound in self.bounds])
        weights = (fullness / max(float(fullness.max()), 1e-300)) ** _SHARPNESS
        weights /= weights.sum()
        result = np.zeros(keep.size)
        for weight, bound in zip(weights.tolist(), self.bounds, strict=True):
            result += weight * (self.limit / bound.limit) * bound.cost.marginal(keep)
        return result


def refuse_below(problem: Problem, ladders: Sequence[Ladder], least: Sequence[int], *, budget: float) -> None:
    """Raise BudgetError when even the least counts of steps, one for each group, cost more than the budget.

    The message names the bound, the least that can be met, and the groups that hold most of it.
    """
    keep = keep_counts(problem.unit_count, ladders, least)
    if problem.cost.total(keep) <= budget:
        return
    cost = problem.cost
    bounds = cost.bounds if isinstance(cost, Bounds) else (Bound("", cost, problem.budget),)
    # Another budget than the problem's own stands for limits that are as much larger or smaller.
    limits = [budget if place == 0 else bound.limit * budget / problem.budget for place, bound in enumerate(bounds)]
    totals = [bound.cost.total(keep) for bound in bounds]
    missed = [place for place, total in enumerate(totals) if total > limits[place]] or [0]
    bound, limit = bounds[missed[0]], limits[missed[0]]
    others = [(bounds[other], totals[other]) for other in missed[1:]]
    also = "".join(f", and for {other.name} at least {other.told(total)}" for other, total in others)
    whole = bound.cost.total(np.ones(problem.unit_count, dtype=np.bool_))
    raise BudgetError(
        f"the budget {bound.name}" if bound.name else f"the budget of {limit:g}",
        expected=f"at least {bound.told(totals[missed[0]])}, the least cost the groups can reach{also}",
        found=f"{bound.told(limit)} of {whole:,.6g}",
        way_out=f"raise the budget or let more units go{_holders(problem, ladders, bound, keep)}",
    )


def _holders(problem: Problem, ladders: Sequence[Ladder], bound: Bound, keep: KeepArray) -> str:
    """Name the groups that hold most of the least cost, and how many of their units stay in it."""
    marginal = bound.cost.marginal(keep) * keep
    held = [float(marginal[ladder.steps].sum()) for ladder in ladders]
    largest = sorted(range(len(held)), key=lambda group: -held[group])[:_MOST_NAMED]
    names = []
    for place in largest:
        group, stay = problem.groups[place], int(keep[ladders[place].steps].sum())
        if held[place] > 0:
            names.append(f"{_brief(group.name)} ({stay} of {group.count} stay)")
    return f"; the groups that bind it are {', '.join(names)}" if names else ""


def _brief(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
