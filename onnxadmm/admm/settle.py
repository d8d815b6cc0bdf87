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

#: What is told of a choice before any correction, and what it takes.
_Point = tuple[float, float]


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
            # Such a correction is right for the choice that was measured, and asks for less than there is of others.
            for correction in corrections:
                correction.relent()
            continue
        fullness = max(correction.measured(keep) for correction in corrections)
        if _NEAR[0] * AIM <= fullness <= 1.0:
            # Of several measurements the one that was too low looks best: another one has to agree.
            fullness = max(fullness, *(correction.measured(keep) for correction in corrections))
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
    logarithms); between two choices on either side of the limit it is told where on the way from one to the other the
    limit lies (the regula falsi).
    """

    def __init__(self, bound: Bound, cost: MeasuredCost) -> None:
        self._limit = bound.limit
        self._cost = cost
        self._factor = self._raised = 1.0
        self._points: list[_Point] = []

    def measured(self, keep: KeepArray) -> float:
        """Measure a choice, correct the cost, and return what share of the limit that is, the aim being ``AIM``."""
        told = max(self._cost.total(keep), 1e-300)
        found = max(self._cost.measure(keep), 1e-300)
        self._points.append((told / self._factor, found))
        factor = self._wanted(binding=told >= _BINDING * self._limit) / self._factor
        self._raised = max(1.0, factor)
        self._correct(factor)
        return found * AIM / self._limit

    def relent(self) -> None:
        """Take half of what the last measurement has raised back, in logarithms."""
        self._raised = math.sqrt(self._raised)
        self._correct(1.0 / self._raised)

    def _correct(self, factor: float) -> None:
        self._factor *= factor
        self._cost.correct(factor)

    def _wanted(self, *, binding: bool) -> float:
        """The factor between what was told at first and the limit, at which the limit is reached."""
        below = max((point for point in self._points if point[1] <= self._limit), default=None)
        above = min((point for point in self._points if point[1] > self._limit), default=None)
        raw, found = self._points[-1]
        if below and above and below[0] < above[0]:
            follows = math.log(above[1] / below[1]) / math.log(above[0] / below[0])
            return self._limit / below[0] * math.pow(below[1] / self._limit, 1.0 / follows)
        if binding and len(self._points) > 1:
            return self._limit / raw * math.pow(found / self._limit, 1.0 / _slope(*self._points[-2:]))
        return found / raw


def _slope(first: _Point, second: _Point) -> float:
    """How much the second of two figures follows the first, as an exponent; 1 where that cannot be told."""
    wide, deep = (math.log(after / before) for before, after in zip(first, second, strict=True))
    return min(max(deep / wide, _FOLLOWS[0]), _FOLLOWS[1]) if abs(wide) > 1e-2 else 1.0


def _fullness(tried: tuple[float, KeepArray]) -> float:
    return tried[0]
