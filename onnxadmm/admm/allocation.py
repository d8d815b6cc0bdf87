"""How many units each group keeps: the least loss under the budget, given what each group loses at each count.

The cost is a sum of products of kept counts. It is linearised at the counts of the moment, where the problem is one
of levels and prices (``knapsack``), and linearised anew at what that gives; on the way down from the whole network the
budget falls in small steps, so that every linearisation is near. What remains is settled on the exact cost: levels go
up while they fit, then levels of one group are exchanged for levels of another while that lowers the loss. So the
result never exceeds the budget, and no single group could keep one level more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.bounds import refuse_below
from onnxadmm.admm.exchange import Exchange
from onnxadmm.admm.knapsack import choose
from onnxadmm.admm.ladder import Ladder, make_ladder
from onnxadmm.admm.levels import DoubleArray, IndexArray, Levels
from onnxadmm.admm.problem import KeepArray, Problem, UnitArray
from onnxadmm.errors import OptionError

#: What a step on the way down leaves of the cost.
_FALL = 0.85
#: Linearisations at the budget itself, by the relaxation and to the optimum; most stand still after fewer.
_SWEEPS, _EXACT_SWEEPS = 8, 3


@dataclass(frozen=True)
class Curve:
    """Loss of keeping the best so many units of one group.

    Between two counts the *root* of the loss is linear in the count, and below the first it goes on as between the
    first two. So a loss that grows with the square of what goes is met exactly, and in between every curve is convex
    and rises with every unit that goes: no count is favoured for having been measured. A loss below that of a larger
    count is noise and is raised to it.

    Attributes:
        counts: units per block, ascending, the last one the whole group: int64 ``[levels]``.
        losses: at these counts, not negative, the last one 0: float64 ``[levels]``.
    """

    counts: NDArray[np.int64]
    losses: NDArray[np.float64]

    def at(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the loss at other counts, float64 of their shape: not negative, and falling with the count."""
        roots = np.sqrt(np.maximum.accumulate(self.losses[::-1])[::-1])
        found = np.interp(counts, self.counts, roots)
        if self.counts.size > 1:
            slope = (roots[0] - roots[1]) / float(self.counts[1] - self.counts[0])
            found = found + slope * np.maximum(self.counts[0] - counts, 0)
        return np.square(found)


def allocate(
    curves: Sequence[Curve], orders: Sequence[UnitArray], problem: Problem, *, budget: float | None = None
) -> KeepArray:
    """Choose how many units each group keeps.

    Args:
        curves: of every group, in the order of ``problem.groups``; only ratios of losses matter.
        orders: removal steps of every group, int64 ``[steps, blocks]``, the first row goes first.
        budget: replaces the problem's own budget.

    Returns:
        bool ``[unit_count]``; its exact cost is at most the budget, and no group could keep one level more.

    Raises:
        BudgetError: the budget cannot be met; the message states the least cost that can.
        OptionError: a curve or an order does not fit its group.
    """
    ladders = [make_ladder(group, order) for group, order in zip(problem.groups, orders, strict=True)]
    for group, curve, ladder in zip(problem.groups, curves, ladders, strict=True):
        _check(group.name, curve, size=len(ladder.steps))
    losses = [curve.at(ladder.levels) for curve, ladder in zip(curves, ladders, strict=True)]
    return allocate_levels(losses, ladders, problem, budget=problem.budget if budget is None else budget)


def allocate_levels(
    losses: Sequence[DoubleArray], ladders: Sequence[Ladder], problem: Problem, *, budget: float
) -> KeepArray:
    """Choose how many units each group keeps, given the loss at each level of its ladder.

    Args:
        losses: of every group, at ``levels`` of its ladder, not rising: float64 ``[levels]``.

    Returns, Raises: as ``allocate``.
    """
    refuse_below(problem, ladders, [ladder.fewest for ladder in ladders], budget=budget)
    levels = Levels(problem, ladders, losses)
    if problem.cost.total(levels.keep(levels.top)) <= budget:
        return levels.keep(levels.top)
    exchange = Exchange(levels, budget)
    starts = (_descended(levels, budget), np.zeros_like(levels.top))
    settled = (exchange.fitted(_settled(levels, start, budget)) for start in starts)
    return levels.keep(min(map(exchange.improved, settled), key=levels.loss))


def _descended(levels: Levels, budget: float) -> IndexArray:
    """Return a choice near the budget, come to from the whole network."""
    chosen = levels.top
    cost = levels.problem.cost.total(levels.keep(chosen))
    while cost * _FALL > budget:
        cost *= _FALL
        chosen = _linearised(levels, chosen, cost, exact=False)
    return chosen


def _settled(levels: Levels, chosen: IndexArray, budget: float) -> IndexArray:
    """Return where linearising again and again at the budget stands still, or the nearest to the budget on the way."""
    found: list[IndexArray] = []
    for exact, most in ((False, _SWEEPS), (True, _EXACT_SWEEPS)):
        before: list[IndexArray] = []
        while len(before) < most and not any(np.array_equal(chosen, other) for other in before):
            before.append(chosen)
            chosen = _linearised(levels, chosen, budget, exact=exact)
            found.append(chosen)
    return min(found, key=lambda choice: abs(levels.problem.cost.total(levels.keep(choice)) - budget))


def _linearised(levels: Levels, chosen: IndexArray, limit: float, *, exact: bool) -> IndexArray:
    """Return the best choice where every unit costs what it adds to the choice of the moment."""
    keep, cost = levels.keep(chosen), levels.problem.cost
    prices = levels.priced(cost.marginal(keep))
    here = sum(float(price[index]) for price, index in zip(prices, chosen, strict=True))
    return choose(prices, levels.losses, limit - (cost.total(keep) - here), exact=exact)


def _check(name: str, curve: Curve, *, size: int) -> None:
    counts, losses = curve.counts, curve.losses
    if (
        counts.shape != losses.shape
        or counts.size == 0
        or np.any(np.diff(counts) <= 0)
        or counts[0] < 0
        or counts[-1] != size
        or not np.all(np.isfinite(losses))
        or np.any(losses < 0)
        or losses[-1] != 0
    ):
        raise OptionError(
            f"the losses of group {name}",
            expected=f"finite ones of at least 0 at ascending counts that end with all {size}, where the loss is 0",
            found=f"{losses.tolist()[-3:]} at the counts {counts.tolist()[-3:]}",
            way_out="measure the group once at each count",
        )
