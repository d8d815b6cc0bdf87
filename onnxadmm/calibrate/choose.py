"""Which units stay: order and curve of every group, and the allocation of the budget among them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.allocation import Curve, allocate
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.state import State
from onnxadmm.calibrate.curves import Distance, Shrinking, measure
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
) -> KeepArray:
    """Choose the units that stay under the problem's budget: bool ``[unit_count]``.

    Args:
        batches: inputs that statistics are collected on.
        scores: of each unit, relative to its group: for what reads units and is no layer.
        distance: from the original.
        on_group: given, after each group, all that was measured so far.
        resume: the last such state of an equal run.

    Raises:
        BudgetError: the budget cannot be met.
    """
    done = _shrinkings_of(resume or {})
    for shrinking in measure(network, problem.groups[len(done) :], batches, scores, distance, effort):
        done.append(shrinking)
        on_group(_state(done))
    return allocate([each.curve for each in done], [each.order for each in done], problem)


def _state(done: Sequence[Shrinking]) -> State:
    return {
        f"{number}/{name}": array
        for number, each in enumerate(done)
        for name, array in (("order", each.order), ("counts", each.curve.counts), ("losses", each.curve.losses))
    }


def _shrinkings_of(state: State) -> list[Shrinking]:
    count = sum(name.endswith("/order") for name in state)
    return [
        Shrinking(state[f"{number}/order"], Curve(state[f"{number}/counts"], state[f"{number}/losses"]))
        for number in range(count)
    ]
