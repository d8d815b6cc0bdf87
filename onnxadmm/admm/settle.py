"""A choice of units that keeps a limit on what is measured."""

from collections.abc import Callable
from typing import Final

from onnxadmm.admm.bounds import Bound, Bounds
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.errors import BudgetError

#: Of a limit, where what is measured is to lie: below it by more than a measurement is off.
AIM: Final = 0.97
#: Of the aim, what is near enough.
_NEAR: Final = (0.96, 1.01)
_ROUNDS: Final = 5


def settle(problem: Problem, choose: Callable[[], KeepArray]) -> KeepArray:
    """Choose units, measure what they cost, correct what the cost tells by that, and choose again until it is right.

    Args:
        choose: returns the units that stay, bool ``[unit_count]``, within the problem's limits as its costs are told.

    Returns:
        what ``choose`` gave, at once where nothing is measured; else the dearest choice that was measured within its
        limits, or the one nearest to them where none is.

    Raises:
        BudgetError: the first choice raised it.
    """
    bounds = problem.cost.bounds if isinstance(problem.cost, Bounds) else ()
    measured = [bound for bound in bounds if bound.measured is not None]
    if not measured:
        return choose()
    tried: list[tuple[float, KeepArray]] = []
    for round_number in range(_ROUNDS):
        try:
            keep = choose()
        except BudgetError:
            if round_number == 0:
                raise
            break  # the correction asks for less than there is
        fullness = max(_corrected(bound, keep) for bound in measured)
        tried.append((fullness, keep))
        again = any((keep == other).all() for _, other in tried[:-1])
        if _NEAR[0] <= fullness / AIM <= _NEAR[1] or (again and fullness <= 1.0):
            break
    within = [each for each in tried if each[0] <= 1.0]
    return max(within, key=_fullness)[1] if within else min(tried, key=_fullness)[1]


def _corrected(bound: Bound, keep: KeepArray) -> float:
    """Measure a choice and let the cost tell what was measured of it; return what share of the limit that is."""
    assert bound.measured is not None  # asked only of these
    found = bound.measured.measure(keep)
    bound.measured.correct(found / max(bound.cost.total(keep), 1e-300))
    return found * AIM / bound.limit


def _fullness(tried: tuple[float, KeepArray]) -> float:
    return tried[0]
