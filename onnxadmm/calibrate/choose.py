"""Which units stay: order and curve of every group, and the allocation of the budget among them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

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

#: Weight of the Fisher information beside a measured curve, as an exponent.
_INFORMED: Final = 0.75


def choose(
    network: Network,
    problem: Problem,
    batches: Sequence[Feed],
    scores: NDArray[np.float64],
    distance: Distance,
    effort: Effort,
    *,
    information: NDArray[np.float64] | None = None,
    on_group: Callable[[State], None] = lambda state: None,
    resume: State | None = None,
) -> Callable[[float], KeepArray]:
    """Measure what the groups lose, and return what chooses the units that stay under a budget.

    Args:
        batches: inputs that statistics are collected on.
        scores: of each unit, relative to its group: for what reads units and is no layer.
        distance: from the original.
        information: Fisher information of each unit's gate, float64 ``[unit_count]``; None: curves alone decide.
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
    curves = [each.curve if information is None else informed(each, information) for each in found]
    orders = [each.order for each in found]
    return lambda budget: allocate(curves, orders, problem, budget=budget)


def informed(shrinking: Shrinking, information: NDArray[np.float64]) -> Curve:
    """Return a group's curve together with the Fisher information of the units that go: a weighted geometric mean.

    A curve is measured with the layers fitted that read the group, and no others: it takes for lost what those further
    behind could make up for, which is most inside of a residual block. The Fisher information sees the whole network,
    but only its slopes, units one by one, and no fit. In a geometric mean the units of both do not matter, and what one
    of them takes for free is.

    Args:
        information: of each unit's gate, float64 ``[unit_count]``.
    """
    steps = len(shrinking.order)
    counts = np.arange(1, steps + 1)
    lost = np.append(0.0, np.cumsum(information[shrinking.order].sum(axis=1)))[steps - counts]
    return Curve(counts, shrinking.curve.at(counts) ** (1 - _INFORMED) * lost**_INFORMED)


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
