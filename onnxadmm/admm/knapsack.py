"""One level of each group at the least loss, under one limit on the sum of their costs.

This is the multiple-choice knapsack problem. Its relaxation is solved by sorting: on the lower convex hull of each
group's points (cost, loss) the segments go up in order of loss saved per cost. What remains is decided by dynamic
programming over the levels that a Lagrangian bound cannot rule out.

Source: Sinha & Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979; Pisinger, "A minimal
algorithm for the multiple-choice knapsack problem", European Journal of Operational Research 83, 1995.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

#: Partial choices that are followed at a time; the result is exact where no more are needed.
STATES = 1000
#: Partial choices times levels of the next group.
_WIDEST = 40_000
#: Relative rounding of sums of losses and prices.
_ROUNDING = 1e-12


def choose(costs: Sequence[DoubleArray], losses: Sequence[DoubleArray], limit: float, *, exact: bool) -> IndexArray:
    """Choose a level of every group.

    Args:
        costs: of the levels of each group, float64 ``[levels]``, ascending.
        losses: likewise, descending.
        limit: most that the costs of the chosen levels may sum up to; below the sum of the first levels, these are
            chosen all the same.
        exact: whether to go on from the relaxation, which leaves less than one step of the limit, to the optimum.

    Returns:
        Index of the chosen level, int64 ``[groups]``.
    """
    hulls = [_hull(cost, loss) for cost, loss in zip(costs, losses, strict=True)]
    left = limit - sum(float(cost[0]) for cost in costs)
    owners = np.repeat(np.arange(len(hulls)), [hull.size - 1 for hull in hulls])
    paid = np.concatenate([np.zeros(0), *(np.diff(cost[hull]) for cost, hull in zip(costs, hulls, strict=True))])
    saved = np.concatenate([np.zeros(0), *(-np.diff(loss[hull]) for loss, hull in zip(losses, hulls, strict=True))])
    gains = np.where(paid > 0, saved / np.where(paid > 0, paid, 1.0), np.inf)
    order = np.argsort(-gains, kind="stable")  # within a group they descend, so each is climbed from below
    fitting = int(np.searchsorted(np.cumsum(paid[order]), left, side="right"))
    climbed = np.bincount(owners[order[:fitting]], minlength=len(hulls))
    chosen = np.array([hull[count] for hull, count in zip(hulls, climbed, strict=True)], dtype=np.int64)
    if not exact or fitting == order.size or left <= 0:
        return chosen
    return _optimum(costs, losses, limit, chosen, price=float(gains[order[fitting]]))


def _hull(costs: DoubleArray, losses: DoubleArray) -> IndexArray:
    """Indices of the points of the lower convex hull, from the first to the last."""
    wide, deep = np.diff(costs), np.diff(losses)
    if np.all(wide > 0) and np.all(deep[1:] * wide[:-1] >= deep[:-1] * wide[1:]):
        return np.arange(costs.size, dtype=np.int64)
    kept: list[int] = []
    x, y = costs.tolist(), losses.tolist()
    for point in range(costs.size):
        while len(kept) > 1:
            first, last = kept[-2], kept[-1]
            if (x[last] - x[first]) * (y[point] - y[first]) > (y[last] - y[first]) * (x[point] - x[first]):
                break
            kept.pop()
        kept.append(point)
    return np.array(kept, dtype=np.int64)


def _optimum(
    costs: Sequence[DoubleArray], losses: Sequence[DoubleArray], limit: float, chosen: IndexArray, *, price: float
) -> IndexArray:
    """Return the best choice, found from a good one and the price at which the relaxation breaks off."""
    priced = [loss + price * cost for cost, loss in zip(costs, losses, strict=True)]
    least = np.array([float(values.min()) for values in priced])
    best = sum(float(loss[index]) for loss, index in zip(losses, chosen, strict=True))
    room = best - (float(least.sum()) - price * limit)  # between the bound and what is known to be possible
    room = max(room, 0.0) + _ROUNDING * (best + price * abs(limit))
    open_levels = [np.flatnonzero(values - low <= room) for values, low in zip(priced, least, strict=True)]
    cheapest = np.array([float(cost[levels].min()) for cost, levels in zip(costs, open_levels, strict=True)])
    cheapest_after = np.append(np.cumsum(cheapest[::-1])[::-1][1:], 0.0)
    cost, loss, excess = np.zeros(1), np.zeros(1), np.zeros(1)
    trail: list[tuple[IndexArray, IndexArray]] = []
    for group, levels in enumerate(open_levels):
        widest = max(1, min(STATES, _WIDEST // levels.size))
        followed = np.arange(cost.size) if cost.size <= widest else np.sort(np.argpartition(excess, widest)[:widest])
        new_cost = np.add.outer(cost[followed], costs[group][levels]).reshape(-1)
        new_loss = np.add.outer(loss[followed], losses[group][levels]).reshape(-1)
        new_excess = np.add.outer(excess[followed], priced[group][levels] - least[group]).reshape(-1)
        possible = np.flatnonzero((new_cost + cheapest_after[group] <= limit) & (new_excess <= room))
        possible = possible[np.lexsort((new_loss[possible], new_cost[possible]))]
        ahead = np.minimum.accumulate(np.append(np.inf, new_loss[possible]))[:-1]
        possible = possible[new_loss[possible] < ahead]  # dearer and no better than another
        if possible.size == 0:
            return chosen
        cost, loss, excess = new_cost[possible], new_loss[possible], new_excess[possible]
        trail.append((followed[possible // levels.size], levels[possible % levels.size]))
    state = int(np.argmin(loss))
    if loss[state] >= best:
        return chosen
    result = np.empty_like(chosen)
    for group in reversed(range(len(trail))):
        before, level = trail[group]
        result[group] = level[state]
        state = int(before[state])
    return result
