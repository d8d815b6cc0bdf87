"""One-shot plans, without training: units ranked by magnitude or at random."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.allocation import Curve, allocate
from onnxadmm.admm.ladder import make_ladder
from onnxadmm.admm.problem import GateGroup, Problem
from onnxadmm.admm.settle import settle
from onnxadmm.errors import BudgetError, OptionError
from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Latency, Limits, refuse_nothing_to_prune, state_problem
from onnxadmm.units.cost import FileSize
from onnxadmm.units.units import Units

Ranking = Literal["magnitude", "random"]


#: Share of every group that a budget leaves, unless it cannot be met so.
PROTECTED = 0.1


def rank_by_budget(
    model: Model,
    units: Units,
    budget: Budget,
    *,
    by: Ranking,
    limits: Limits,
    seed: int,
    file: FileSize | None = None,
    latency: Latency | None = None,
) -> NDArray[np.bool_]:
    """Return which units stay under a budget: bool ``[units.count]``.

    The worst units of each group go. How many is allocated exactly (see ``allocation``), where a group that loses the
    share ``x`` of its score loses

        c x^2 / (1 - x),        c = what the whole group costs at the margin,

    so that groups whose units score alike shrink alike, whatever they cost; those with units of little score shrink
    further, and none shrinks far while another is whole. At least a tenth of every group stays, unless the budget
    cannot be met so.

    ``file`` is needed where the budget counts bytes of the file, ``latency`` where it is of that.

    Norms know nothing of the loss: this is a baseline to compare with, and a network to retrain, not one to use.

    Raises:
        BudgetError: the budget cannot be met.
        NothingToPruneError: no group may shrink.
    """
    with analysing(model, "a ranking of units"):
        scores = score(model, units, by=by, seed=seed)
        problem = state_problem(model, units, budget, limits, file=file, latency=latency)
        keep = settle(problem, lambda: _allocated(problem, scores))
        if file is None or "size" not in budget.amounts:
            return keep
        # What a file holds beside its weights depends a little on what goes, and is known better now.
        near = state_problem(model, units, budget, limits, file=file, near=keep, latency=latency)
        nearer = _allocated(near, scores)
        return nearer if file.written(nearer) <= budget.resolve("size", file.original) else keep


def _allocated(problem: Problem, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    orders = [_order(scores, group) for group in problem.groups]
    marginal = problem.cost.marginal(np.ones(problem.unit_count, dtype=np.bool_))
    curves = [_curve(scores[order].sum(axis=1), weight=float(marginal[order].sum())) for order in orders]
    try:
        return allocate(curves, orders, _protecting(problem))
    except BudgetError:
        return allocate(curves, orders, problem)


def _order(scores: NDArray[np.float64], group: GateGroup) -> NDArray[np.int64]:
    """Return the units of a group, one of every block in a row, the least score first: int64 ``[steps, blocks]``."""
    return np.stack([members[np.argsort(scores[members], kind="stable")] for members in group.members], axis=1)


def _curve(lost: NDArray[np.float64], *, weight: float) -> Curve:
    """Return the loss of a group whose steps score so much in the order in which they go: float64 ``[steps]``."""
    stays = np.cumsum(lost[::-1]) / lost.sum()
    stays[-1] = 1.0
    return Curve(np.arange(1, lost.size + 1), weight * np.square(1.0 - stays) / stays)


def _protecting(problem: Problem) -> Problem:
    groups = (
        replace(group, keep_at_least=max(group.keep_at_least, math.ceil(PROTECTED * len(group.members[0]))))
        for group in problem.groups
    )
    return replace(problem, groups=tuple(groups))


def rank_by_ratio(
    model: Model, units: Units, ratio: float, *, by: Ranking, limits: Limits, seed: int
) -> NDArray[np.bool_]:
    """Return which units stay when a share of every group goes: bool ``[units.count]``.

    Raises:
        OptionError: the ratio is negative, or 1 and more.
        NothingToPruneError: no group may shrink.
    """
    if not 0 <= ratio < 1:
        raise OptionError("--ratio", expected="at least 0 and below 1", found=f"{ratio:g}", way_out="give a share")
    refuse_nothing_to_prune(units)
    with analysing(model, "a ranking of units"):
        scores = score(model, units, by=by, seed=seed)
    keep = np.ones(units.count, dtype=np.bool_)
    for group in units.groups:
        _remove_share(keep, scores, limits.of(group), ratio)
    return keep


def _remove_share(keep: NDArray[np.bool_], scores: NDArray[np.float64], group: GateGroup, ratio: float) -> None:
    ordered = [members[np.argsort(scores[members], kind="stable")] for members in group.members]
    ladder = make_ladder(group, np.stack(ordered, axis=1))
    stays = ladder.lower(len(ladder.steps) - int(ratio * len(ladder.steps) + 1e-9))
    keep[ladder.steps[: len(ladder.steps) - stays]] = False


def score(model: Model, units: Units, *, by: Ranking, seed: int) -> NDArray[np.float64]:
    """Return what losing each unit is taken to cost: float64 ``[units.count]``, not negative.

    ``"magnitude"`` is the share of the unit in the sum of squares of its group, in the mean over all weights that
    write or read the group: each counts alike, however many numbers it has and however they are scaled. So it sums
    up to 1 over a group. It is the group norm of Fang et al., "DepGraph: Towards any structural pruning", 2023, with
    every weight made relative to its group.

    Raises:
        OptionError: an unknown ranking.
    """
    if by not in get_args(Ranking):
        raise OptionError("--by", expected=" or ".join(get_args(Ranking)), found=repr(by), way_out="choose one")
    if by == "random":
        return np.random.default_rng(seed).random(units.count)
    model = inline(model)  # units name the weights of functions and branches as well
    groups = np.repeat(np.arange(len(units.groups)), [group.count for group in units.groups])
    shares, weights = np.zeros(units.count), np.zeros(len(units.groups))
    for squares in _squares(model, units):
        sums = np.bincount(groups, squares, minlength=weights.size)
        counted = sums > 0
        shares += squares / np.where(counted, sums, 1.0)[groups]
        weights += counted
    # Without a weight of numbers (a quantised one) all units of a group are alike.
    counts = np.array([group.count for group in units.groups])
    return np.where(weights[groups] > 0, shares / np.maximum(weights, 1.0)[groups], 1.0 / counts[groups])


def _squares(model: Model, units: Units) -> Iterator[NDArray[np.float64]]:
    """Yield, for every weight that writes units and every one that reads them, each unit's sum of squares in it."""
    values = constants_by_name(model)
    for part in (*units.writers, *units.readers):
        array = constant(values[part.tensor])
        if array is None or array.ndim < 2 or not np.issubdtype(array.dtype, np.floating):
            continue
        totals = np.zeros(units.count + 1)  # the last element takes what belongs to no unit
        for block, owners in zip(np.split(array, part.block_count), np.atleast_2d(part.units), strict=True):
            shape = (int(np.prod(block.shape[: part.axis])), block.shape[part.axis], -1)
            view = block.reshape(shape).astype(np.float32, copy=False)  # [before, positions, after]
            squares = np.einsum("ipj,ipj->p", view, view, dtype=np.float64)
            np.add.at(totals, np.where(owners < units.count, owners, -1), squares)
        yield totals[:-1]
