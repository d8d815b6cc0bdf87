"""A choice of units that keeps a limit on what is measured."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from onnxadmm.admm.bounds import Bound, Bounds
from onnxadmm.admm.problem import KeepArray, MeasuredCost, Problem
from onnxadmm.errors import BudgetError

#: Of a limit, where what is measured is to lie: below it by more than a measurement is off.
AIM: Final = 0.97
#: Of the aim, what is near enough.
_NEAR: Final = (0.96, 1.01)
_ROUNDS: Final = 8
#: Of its limit, what a cost is told to be where it is what limits the choice.
_BINDING: Final = 0.9
#: How much what is measured may follow what is told, as an exponent.
_FOLLOWS: Final = (0.2, 1.5)


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
    corrections = [_Correction(bound, bound.measured) for bound in bounds if bound.measured is not None]
    if not corrections:
        return choose()
    tried: list[tuple[float, KeepArray]] = []
    for round_number in range(_ROUNDS):
        try:
            keep = choose()
        except BudgetError:
            if round_number == 0:
                raise
            break  # the correction asks for less than there is
        fullness = max(correction.measured(keep) for correction in corrections)
        again = any((keep == other).all() for _, other in tried)
        tried.append((fullness, keep))
        if _NEAR[0] <= fullness / AIM <= _NEAR[1] or (again and fullness <= 1.0):
            break
    within = [each for each in tried if each[0] <= 1.0]
    return max(within, key=_fullness)[1] if within else min(tried, key=_fullness)[1]


def untimed(problem: Problem) -> Problem:
    """Return a problem whose costs are only told of: choices under it are not measured, and correct nothing."""
    if not isinstance(problem.cost, Bounds):
        return problem
    return replace(problem, cost=Bounds([replace(bound, measured=None) for bound in problem.cost.bounds]))


class _Correction:
    """Corrects one cost by what was measured of it.

    What is told is taken to be off by a factor. Where a second measurement shows that what is measured follows it less,
    or more, as there is a part that no unit changes, the next choice goes as much further (the secant method, in
    logarithms).
    """

    def __init__(self, bound: Bound, cost: MeasuredCost) -> None:
        self._limit = bound.limit
        self._cost = cost
        self._factor = 1.0
        self._last: tuple[float, float] | None = None

    def measured(self, keep: KeepArray) -> float:
        """Measure a choice, correct the cost, and return what share of the limit that is, the aim being ``AIM``."""
        told = max(self._cost.total(keep), 1e-300)
        found = max(self._cost.measure(keep), 1e-300)
        raw = told / self._factor
        factor = found / told
        if self._last is not None and told >= _BINDING * self._limit:
            follows = _slope(self._last, (raw, found))
            factor = (self._limit / told) * (found / self._limit) ** (1.0 / follows)
        self._last = (raw, found)
        self._factor *= factor
        self._cost.correct(factor)
        return found * AIM / self._limit


def _slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    """How much the second of two figures follows the first, as an exponent; 1 where that cannot be told."""
    wide, deep = (math.log(after / before) for before, after in zip(first, second, strict=True))
    return min(max(deep / wide, _FOLLOWS[0]), _FOLLOWS[1]) if abs(wide) > 1e-2 else 1.0


def _fullness(tried: tuple[float, KeepArray]) -> float:
    return tried[0]
