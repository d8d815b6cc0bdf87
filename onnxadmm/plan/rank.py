"""One-shot plans, without training: units ranked by magnitude or at random."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup, Reader
from onnxadmm.admm.selection import select
from onnxadmm.errors import OptionError
from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, refuse_nothing_to_prune, state_problem
from onnxadmm.units.units import Units

Ranking = Literal["magnitude", "random"]


def rank_by_budget(
    model: Model, units: Units, budget: Budget, *, by: Ranking, limits: Limits, seed: int
) -> NDArray[np.bool_]:
    """Return which units stay under a budget: bool ``[units.count]``.

    Raises:
        BudgetError: the budget cannot be met.
        NothingToPruneError: no group may shrink.
    """
    with analysing(model, "a ranking of units"):
        problem = state_problem(model, units, budget, limits)
        return select(score(model, units, by=by, seed=seed), problem)


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
    size = group.count // group.block_count
    most = min(size - group.keep_at_least, group.keep_at_most_removed * size // group.count)
    going = min(int(ratio * size + 1e-9), most)
    for members in group.members:
        keep[members[np.argsort(scores[members], kind="stable")[:going]]] = False


def score(model: Model, units: Units, *, by: Ranking, seed: int) -> NDArray[np.float64]:
    """Return what losing each unit is taken to cost: float64 ``[units.count]``, not negative.

    ``"magnitude"`` is the L2 norm of the weights that write a unit (that read it, where padding writes it),
    divided by the mean of its group.

    Raises:
        OptionError: an unknown ranking.
    """
    if by not in get_args(Ranking):
        raise OptionError("--by", expected=" or ".join(get_args(Ranking)), found=repr(by), way_out="choose one")
    if by == "random":
        return np.random.default_rng(seed).random(units.count)
    model = inline(model)  # units name the weights of functions and branches as well
    written = _squares(model, units, units.writers)
    read = _squares(model, units, units.readers)
    norms = np.sqrt(np.where(written > 0, written, read))
    for group in units.groups:
        own = norms[group.start : group.start + group.count]
        mean = own.mean()
        if mean > 0:
            own /= mean
    return norms


def _squares(model: Model, units: Units, slices: tuple[Reader, ...]) -> NDArray[np.float64]:
    """Return the sum of squares of the weights of each unit."""
    totals = np.zeros(units.count + 1)  # the last element takes what belongs to no unit
    values = constants_by_name(model)
    for part in slices:
        array = constant(values[part.tensor])
        if array is None or array.ndim < 2 or not np.issubdtype(array.dtype, np.floating):
            continue
        for block, owners in zip(np.split(array, part.block_count), np.atleast_2d(part.units), strict=True):
            shape = (int(np.prod(block.shape[: part.axis])), block.shape[part.axis], -1)
            view = block.reshape(shape).astype(np.float32, copy=False)  # [before, positions, after]
            np.add.at(totals, owners, np.einsum("ipj,ipj->p", view, view, dtype=np.float64))
    return totals[:-1]
