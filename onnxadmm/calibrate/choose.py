"""Which units stay: order and curve of every group, and the allocation of the budget among them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.allocation import Curve, allocate
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.state import State
from onnxadmm.calibrate.curves import Shrinking, measure
from onnxadmm.calibrate.distance import Distance
from onnxadmm.calibrate.effort import Effort
from onnxadmm.calibrate.frontier import Feed
from onnxadmm.calibrate.network import Network


def choose(
    network: Network,
    problem: Problem,
    batches: Sequence[Feed],
    scores: NDArray[np.float64],
    distance: Distance,
    effort: Effort,
    *,
    on_group: Callable[[State], None] = lambda state: None,
    resume: State | None = None,
) -> Callable[[float], KeepArray]:
    """Measure what the groups lose, and return what chooses the units that stay under a budget.

    Args:
        batches: inputs that statistics are collected on.
        scores: of each unit, relative to its group: for what reads units and is no layer.
        distance: from the original.
        on_group: given, after each group, all that was measured so far.
        resume: the last such state of an equal run.

    Returns:
        a function of a budget, in the unit of the problem's own: bool ``[unit_count]``. It raises BudgetError where the
        budget cannot be met.
    """
    numbers = {group.start: number for number, group in enumerate(problem.groups)}
    done = _shrinkings_of(resume or {})
    left = [group for group in problem.groups if numbers[group.start] not in done]
    for group, shrinking in measure(network, left, batches, scores, distance, effort):
        done[numbers[group.start]] = shrinking
        on_group(_state(done))
    found = [done[number] for number in range(len(problem.groups))]
    curves, orders = [each.curve for each in found], [each.order for each in found]
    return lambda budget: allocate(curves, orders, problem, budget=budget)


def _state(done: Mapping[int, Shrinking]) -> State:
    return {
        f"{number}/{name}": array
        for number, each in done.items()
        for name, array in (("order", each.order), ("counts", each.curve.counts), ("losses", each.curve.losses))
    }


def _shrinkings_of(state: State) -> dict[int, Shrinking]:
    numbers = [int(name.removesuffix("/order")) for name in state if name.endswith("/order")]
    return {
        number: Shrinking(state[f"{number}/order"], Curve(state[f"{number}/counts"], state[f"{number}/losses"]))
        for number in numbers
    }
