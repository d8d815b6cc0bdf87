"""Which units stay, given what losing each of them costs in loss."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.allocation import allocate_levels
from onnxadmm.admm.bounds import refuse_below
from onnxadmm.admm.ladder import Ladder, keep_counts, make_ladder
from onnxadmm.admm.problem import GateGroup, KeepArray, Problem
from onnxadmm.errors import OptionError

DoubleArray = NDArray[np.float64]


def refuse_unreachable(problem: Problem, *, score: DoubleArray | None = None) -> None:
    """Raise BudgetError when no choice of units can meet the problem's budget; the message names what binds it.

    What keeps the fewest units of every group allowed by ``keep_at_least``, ``keep_at_most_removed``, blocks and
    multiples costs least.

    Args:
        score: which units are taken to stay in each group where that matters, as for ``select``; None: any.
    """
    ladders = _ladders(np.zeros(problem.unit_count) if score is None else score, problem)
    refuse_below(problem, ladders, [ladder.fewest for ladder in ladders], budget=problem.budget)


def select(score: DoubleArray, problem: Problem, *, budget: float | None = None) -> KeepArray:
    """Choose the units that stay under one budget for all groups, so that the least score is lost.

    In each group the best-scored units stay; how many is allocated exactly (see ``allocation``), with the sum of the
    scores that go as the loss of the group.

    Args:
        score: what losing the unit costs in loss, float64 ``[unit_count]``, not negative; only ratios matter.
        budget: replaces the problem's own budget.

    Returns:
        bool ``[unit_count]``; its exact cost is at most the budget, and no group could keep one step more.

    Raises:
        BudgetError: the budget cannot be met; the message states the least cost that can.
    """
    _check_score(score, problem)
    ladders = _ladders(score, problem)
    lost = [np.append(0.0, np.cumsum(score[ladder.steps].sum(axis=1))) for ladder in ladders]
    losses = [loss[len(ladder.steps) - ladder.levels] for loss, ladder in zip(lost, ladders, strict=True)]
    return allocate_levels(losses, ladders, problem, budget=problem.budget if budget is None else budget)


def select_per_group(score: DoubleArray, problem: Problem, *, budget: float | None = None) -> KeepArray:
    """Choose the units that stay with a target for every group (joint mode): the best-scored ones of each.

    Every group keeps the same share of its units, the largest that meets the budget, but never less than its count in
    ``problem.keep_counts`` where that is given, and in the end no more where that is all. Arguments and errors as in
    ``select``.
    """
    _check_score(score, problem)
    limit = problem.budget if budget is None else budget
    ladders = _ladders(score, problem)
    least = [ladder.fewest for ladder in ladders]
    if problem.keep_counts is not None:
        counts = zip(ladders, problem.keep_counts, strict=True)
        least = [max(ladder.fewest, min(n // ladder.steps.shape[1], len(ladder.steps))) for ladder, n in counts]
    refuse_below(problem, ladders, least, budget=limit)
    if problem.counts_alone and limit <= problem.budget:
        return keep_counts(problem.unit_count, ladders, least)
    # Shares at which some group's count changes: the exact candidates, searched by halves.
    shares = np.unique(np.concatenate([[0.0], *(np.arange(1, size + 1) / size for size in _sizes(ladders))]))
    low, high = 0, shares.size
    while high - low > 1:
        middle = (low + high) // 2
        keep = keep_counts(problem.unit_count, ladders, _counts_of_share(ladders, float(shares[middle]), least))
        if problem.cost.total(keep) <= limit:
            low = middle
        else:
            high = middle
    return keep_counts(problem.unit_count, ladders, _counts_of_share(ladders, float(shares[low]), least))


def _sizes(ladders: list[Ladder]) -> list[int]:
    return [ladder.steps.shape[0] for ladder in ladders]


def _counts_of_share(ladders: list[Ladder], share: float, least: list[int]) -> list[int]:
    # The small addition keeps share k/n from falling to k - 1 by rounding.
    counts = [ladder.lower(int(np.floor(share * len(ladder.steps) + 1e-9))) for ladder in ladders]
    return [max(pair) for pair in zip(counts, least, strict=True)]


def _check_score(score: DoubleArray, problem: Problem) -> None:
    if score.shape != (problem.unit_count,) or not np.all(np.isfinite(score)) or np.any(score < 0):
        raise OptionError(
            "the score of the units",
            expected=f"{problem.unit_count} finite numbers of at least 0",
            found=f"shape {list(score.shape)}, least {float(np.min(score, initial=0.0)):g}",
            way_out="score every unit",
        )


def _ladders(score: DoubleArray, problem: Problem) -> list[Ladder]:
    return [_ladder(score, group) for group in problem.groups]


def _ladder(score: DoubleArray, group: GateGroup) -> Ladder:
    columns = [members[np.argsort(score[members], kind="stable")] for members in group.members]
    if len({column.size for column in columns}) != 1:
        raise OptionError(
            f"group {group.name}",
            expected="equally many units in every block",
            found=f"{sorted({column.size for column in columns})}",
            way_out="number the blocks of the group anew",
        )
    return make_ladder(group, np.stack(columns, axis=1))
