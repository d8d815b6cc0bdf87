"""Which units stay: order and curve of every group, and the allocation of the budget among them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
from onnxadmm.calibrate.refit import Fitted, refit

#: Chooses the units that stay under a budget, in the unit of the problem's own: bool ``[unit_count]``. It raises
#: BudgetError where the budget cannot be met.
Choice = Callable[[float], KeepArray]


@dataclass(frozen=True)
class Tried:
    """A choice, and what became of it.

    Attributes:
        choice: which one.
        keep: units that stayed under some budget; None where nothing was tried, as there was no other choice.
        fitted: the layers that read them.
        off: how far the network is from the original.
    """

    choice: Choice
    keep: KeepArray | None = None
    fitted: Fitted | None = None
    off: float = np.inf

    def fitted_for(self, keep: KeepArray) -> Fitted | None:
        """Return the layers that read some units; None where others were tried."""
        return self.fitted if self.keep is not None and (self.keep == keep).all() else None


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
) -> list[Choice]:
    """Measure what the groups lose, and return what chooses the units that stay under a budget, of each weight.

    Args:
        batches: inputs that statistics are collected on.
        scores: of each unit, relative to its group: for what reads units and is no layer.
        distance: from the original.
        information: Fisher information of each unit's gate, float64 ``[unit_count]``, which counts by the weights of
            the effort; None: curves alone decide, in one choice.
        on_group: given, after each group, all that was measured so far.
        resume: the last such state of an equal run.
    """
    numbers = {group.start: number for number, group in enumerate(problem.groups)}
    done = _shrinkings_of(resume or {})
    left = [group for group in problem.groups if numbers[group.start] not in done]
    for group, shrinking in measure(network, left, batches, scores, distance, effort):
        done[numbers[group.start]] = shrinking
        on_group(_state(done))
    found = [done[number] for number in range(len(problem.groups))]
    orders = [each.order for each in found]

    def chosen(curves: Sequence[Curve], budget: float) -> KeepArray:
        return allocate(curves, orders, problem, budget=budget)

    if information is None:
        return [partial(chosen, [each.curve for each in found])]
    gone = [
        _information_gone(each, information, turned=group.start in network.pairs)
        for each, group in zip(found, problem.groups, strict=True)
    ]
    return [
        partial(chosen, [_together(each.curve, lost, weight) for each, lost in zip(found, gone, strict=True)])
        for weight in effort.weights
    ]


def _information_gone(shrinking: Shrinking, information: NDArray[np.float64], *, turned: bool) -> NDArray[np.float64]:
    """Fisher information of the units that go where no step stays, one, and so on up to all: float64 ``[steps + 1]``.

    Args:
        turned: whether the units get another basis before they go, so that there is only one of all of them.
    """
    each = information[shrinking.order].sum(axis=1)
    if not turned:
        return np.append(0.0, np.cumsum(each))[::-1]
    losses = shrinking.curve.at(np.arange(len(each) + 1))
    if not losses[1]:
        return losses  # the pair loses nothing, however much goes
    return losses * float(each.sum() / losses[1])


def _together(curve: Curve, gone: NDArray[np.float64], weight: float) -> Curve:
    """A group's curve together with the information that goes: their weighted geometric mean.

    A curve is measured with the layers fitted that read the group, and no others: it takes for lost what those further
    behind could make up for, which is most inside of a residual block. The Fisher information sees the whole network,
    but only its slopes, units one by one, and no fit. In a geometric mean the units of both do not matter, and what one
    of them takes for free is.
    """
    counts = np.arange(len(gone))
    return Curve(counts, curve.at(counts) ** (1 - weight) * gone**weight)


def nearest(
    choices: Sequence[Choice],
    budget: float,
    *,
    network: Network,
    batches: Sequence[Feed],
    distance: Distance,
    effort: Effort,
    on_choice: Callable[[], None] = lambda: None,
) -> Tried:
    """Return the choice under which the network, its layers fitted anew, stays nearest to the original.

    Args:
        choices: one at least.
        budget: that all of them are tried under.
        batches: inputs that layers are fitted to.
        distance: from the original.
        on_choice: called after each.

    Raises:
        BudgetError: the budget cannot be met.
    """
    if len(choices) == 1:
        return Tried(choices[0])
    tried: list[Tried] = []
    for choice in choices:
        keep = choice(budget)
        if all(each.fitted_for(keep) is None for each in tried):
            fitted = refit(network, keep, batches, effort)
            (off,) = distance([network.without_units(fitted.constants, keep)])
            tried.append(Tried(choice, keep, fitted, off if np.isfinite(off) else np.inf))
        on_choice()
    return min(tried, key=lambda each: each.off)


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
