"""Which units stay: the least valuable per cost go, one chunk at a time, until the budget is met.

A *removal step* of a group takes one unit, or one unit of every block where blocks must stay equal. Costs are
bilinear (a convolution's MACs are out x in x ...), so marginal costs fall as units go and are computed anew after
every chunk; the budget is judged by the exact cost alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup, KeepArray, Problem
from onnxadmm.errors import BudgetError, OptionError

DoubleArray = NDArray[np.float64]
UnitArray = NDArray[np.int64]

CHUNK_SHARE = 0.125
"""Part of the excess over the budget that goes between two computations of the marginal costs."""


@dataclass(frozen=True)
class _Ladder:
    """The removal steps of one group, worst first: int64 ``[steps, blocks]``."""

    steps: UnitArray
    fewest: int
    multiple: int

    def allowed(self, kept: int) -> bool:
        """Whether the group may end with ``kept`` steps: fewer units than one multiple, some multiples, or all."""
        units = kept * int(self.steps.shape[1])
        return units < self.multiple or units % self.multiple == 0 or kept == len(self.steps)

    def lower(self, kept: int) -> int:
        """Largest allowed count that is at most ``kept``, but not below ``fewest`` (which is allowed)."""
        while kept > self.fewest and not self.allowed(kept):
            kept -= 1
        return max(kept, self.fewest)

    def next_above(self, kept: int) -> int:
        """Smallest allowed count above ``kept``."""
        kept += 1
        while not self.allowed(kept):
            kept += 1
        return kept


def refuse_unreachable(problem: Problem) -> None:
    """Raise BudgetError when no choice of units can meet the problem's budget.

    What keeps the fewest units of every group allowed by ``keep_at_least``, ``keep_at_most_removed``, blocks and
    multiples costs least.
    """
    ladders = _ladders(np.zeros(problem.unit_count), problem)
    least = problem.cost.total(_keep(problem, ladders, [ladder.fewest for ladder in ladders]))
    if least > problem.budget:
        raise _unreachable(problem, problem.budget, least)


def select(score: DoubleArray, problem: Problem, *, budget: float | None = None) -> KeepArray:
    """Choose the units that stay under one budget for all groups.

    Units go by ascending ``score / marginal cost``. Kept counts are then rounded down to each group's ``multiple``
    where at least one multiple stays, and what that leaves of the budget brings back the units with the
    highest score per cost that still fit.

    Args:
        score: what losing the unit costs in loss, float64 ``[unit_count]``, not negative; only ratios matter.
        budget: replaces the problem's own budget.

    Returns:
        bool ``[unit_count]``; its exact cost is at most the budget.

    Raises:
        BudgetError: the budget cannot be met; the message states the least cost that can.
    """
    _check_score(score, problem)
    limit = problem.budget if budget is None else budget
    ladders = _ladders(score, problem)
    kept = [ladder.steps.shape[0] for ladder in ladders]
    keep = _keep(problem, ladders, kept)
    cost = problem.cost.total(keep)
    while cost > limit:
        ratios, costs, owners = _removable(score, problem, ladders, kept, keep)
        if ratios.size == 0:
            raise _unreachable(problem, limit, cost)
        order = np.argsort(ratios, kind="stable")
        # Marginals overstate what several removals save together, so a chunk of the excess never overshoots.
        chunk = max(1, int(np.searchsorted(np.cumsum(costs[order]), CHUNK_SHARE * (cost - limit), side="right")))
        for owner, count in zip(*np.unique(owners[order[:chunk]], return_counts=True), strict=True):
            kept[owner] -= int(count)
        keep = _keep(problem, ladders, kept)
        cost = problem.cost.total(keep)
    kept = [ladder.lower(count) for ladder, count in zip(ladders, kept, strict=True)]
    return _spend(score, problem, ladders, kept, limit)


def select_per_group(score: DoubleArray, problem: Problem, *, budget: float | None = None) -> KeepArray:
    """Choose the units that stay with a target for every group (joint mode): the best-scored ones of each.

    Every group keeps the same share of its units, the largest that meets the budget, but never less than its count in
    ``problem.keep_counts`` where that is given. Arguments and errors as in ``select``.
    """
    _check_score(score, problem)
    limit = problem.budget if budget is None else budget
    ladders = _ladders(score, problem)
    least = [ladder.fewest for ladder in ladders]
    if problem.keep_counts is not None:
        counts = zip(ladders, problem.keep_counts, strict=True)
        least = [max(ladder.fewest, min(n // ladder.steps.shape[1], len(ladder.steps))) for ladder, n in counts]
    if problem.cost.total(_keep(problem, ladders, least)) > limit:
        raise _unreachable(problem, limit, problem.cost.total(_keep(problem, ladders, least)))
    # Shares at which some group's count changes: the exact candidates, searched by halves.
    shares = np.unique(np.concatenate([[0.0], *(np.arange(1, size + 1) / size for size in _sizes(ladders))]))
    low, high = 0, shares.size
    while high - low > 1:
        middle = (low + high) // 2
        keep = _keep(problem, ladders, _counts_of_share(ladders, float(shares[middle]), least))
        if problem.cost.total(keep) <= limit:
            low = middle
        else:
            high = middle
    return _keep(problem, ladders, _counts_of_share(ladders, float(shares[low]), least))


def _sizes(ladders: list[_Ladder]) -> list[int]:
    return [ladder.steps.shape[0] for ladder in ladders]


def _counts_of_share(ladders: list[_Ladder], share: float, least: list[int]) -> list[int]:
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


def _ladders(score: DoubleArray, problem: Problem) -> list[_Ladder]:
    return [_ladder(score, group) for group in problem.groups]


def _ladder(score: DoubleArray, group: GateGroup) -> _Ladder:
    columns = [members[np.argsort(score[members], kind="stable")] for members in group.members]
    if len({column.size for column in columns}) != 1:
        raise OptionError(
            f"group {group.name}",
            expected="equally many units in every block",
            found=f"{sorted({column.size for column in columns})}",
            way_out="number the blocks of the group anew",
        )
    steps = np.stack(columns, axis=1)  # [steps, blocks]
    size = steps.shape[0]
    fewest = min(size, max(1, group.keep_at_least, size - max(0, group.keep_at_most_removed) // steps.shape[1]))
    ladder = _Ladder(steps=steps, fewest=fewest, multiple=max(1, group.multiple))
    while not ladder.allowed(fewest):
        fewest += 1
    return _Ladder(steps=steps, fewest=fewest, multiple=ladder.multiple)


def _keep(problem: Problem, ladders: list[_Ladder], kept: list[int]) -> KeepArray:
    keep = np.ones(problem.unit_count, dtype=np.bool_)
    for ladder, count in zip(ladders, kept, strict=True):
        keep[ladder.steps[: ladder.steps.shape[0] - count]] = False
    return keep


def _removable(
    score: DoubleArray, problem: Problem, ladders: list[_Ladder], kept: list[int], keep: KeepArray
) -> tuple[DoubleArray, DoubleArray, UnitArray]:
    """Score per cost, cost and group of every removal step still open, in the ladders' order."""
    marginal = problem.cost.marginal(keep)
    ratios, costs, owners = [], [], []
    for index, (ladder, count) in enumerate(zip(ladders, kept, strict=True)):
        open_steps = ladder.steps[ladder.steps.shape[0] - count : ladder.steps.shape[0] - ladder.fewest]
        cost = marginal[open_steps].sum(axis=1)
        # A ladder goes from its worst step on: within a group an earlier step is never dearer to lose.
        ratios.append(np.maximum.accumulate(_per_cost(score[open_steps].sum(axis=1), cost)))
        costs.append(cost)
        owners.append(np.full(cost.size, index, dtype=np.int64))
    if not ratios:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    return np.concatenate(ratios), np.concatenate(costs), np.concatenate(owners)


def _per_cost(score: DoubleArray, cost: DoubleArray) -> DoubleArray:
    """Score per cost; a step that saves nothing is the last to go."""
    priced = cost > 0
    return np.where(priced, score / np.where(priced, cost, 1.0), np.inf)


def _spend(score: DoubleArray, problem: Problem, ladders: list[_Ladder], kept: list[int], limit: float) -> KeepArray:
    """Bring back steps, best score per cost first, while the exact cost stays within ``limit``."""
    closed = [False] * len(ladders)
    keep = _keep(problem, ladders, kept)
    marginal = problem.cost.marginal(keep)
    while True:
        best, best_ratio, best_count = -1, -1.0, 0
        for index, ladder in enumerate(ladders):
            size = ladder.steps.shape[0]
            if closed[index] or kept[index] == size:
                continue
            count = ladder.next_above(kept[index])
            back = ladder.steps[size - count : size - kept[index]]
            price = float(marginal[back].sum())
            ratio = float(score[back].sum()) / price if price > 0 else np.inf
            if ratio > best_ratio:
                best, best_ratio, best_count = index, ratio, count
        if best < 0:
            return keep
        trial = kept.copy()
        trial[best] = best_count
        trial_keep = _keep(problem, ladders, trial)
        if problem.cost.total(trial_keep) <= limit:
            kept, keep = trial, trial_keep
            marginal = problem.cost.marginal(keep)
        else:
            closed[best] = True  # costs only grow as units come back, so it will not fit later either


def _unreachable(problem: Problem, limit: float, least: float) -> BudgetError:
    return BudgetError(
        f"the budget of {limit:g}",
        expected=f"at least {least:g}, the least cost the groups can reach",
        found=f"{limit:g} of {problem.cost.total(np.ones(problem.unit_count, dtype=np.bool_)):g}",
        way_out="raise the budget or let more units go",
    )
