"""How much of a budget is spent: random scores on networks as they are exported, every cost and rounding."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onnxadmm.admm.selection import select
from onnxadmm.errors import BudgetError
from onnxadmm.graph.model import load
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.units.units import Units, find_units
from tests.shared import SHARED

ZOO = Path(__file__).resolve().parents[1] / "zoo"
NAMES = sorted([*ZOO.glob("*.onnx"), *(SHARED / "models").glob("*.onnx")], key=lambda path: path.name)


def could_keep_more(keep, problem):
    """Whether a single group could keep one allowed level more, whichever units that are alike it brings back."""
    for group in problem.groups:
        gone = [members[~keep[members]] for members in group.members]
        kept, size = len(group.members[0]) - len(gone[0]), len(group.members[0])
        width = len(gone)
        for count in range(kept + 1, size + 1):
            if count * width < group.multiple or count * width % group.multiple == 0 or count == size:
                more = keep.copy()
                for units in gone:
                    more[units[: count - kept]] = True
                if problem.cost.total(more) <= problem.budget:
                    return True
                break
    return False


@cache
def found(path: Path) -> tuple[object, Units]:
    model = load(path)
    return model, find_units(model)


def draw(generator):
    """A network, a budget and its problem, drawn until the network may shrink and the budget can be met."""
    while True:
        model, units = found(NAMES[int(generator.integers(len(NAMES)))])
        budget = Budget(**{str(generator.choice(["macs", "params"])): float(generator.uniform(0.15, 0.9))})
        if units.groups:
            problem = state_problem(model, units, budget, Limits(round_to=1))
            score = generator.lognormal(0, 1.5, units.count)
            try:
                select(score, problem)
            except BudgetError:
                continue
            return model, units, budget, score


def check(pairs):
    """Assert that budgets are kept, and spent as far as the levels of the groups allow.

    That is: no single group could keep one level more. So what is left is less than the cheapest step up, which in
    networks as small as those of the zoo may be some hundredths of the budget.

    Returns:
        The share of pairs that end within 2 % of the budget with free counts, and within 4 % with multiples of 16.
    """
    generator = np.random.default_rng(7)
    near = {1: 0, 16: 0}
    for _ in range(pairs):
        model, units, budget, score = draw(generator)
        for round_to, share in ((1, 0.98), (16, 0.96)):
            problem = state_problem(model, units, budget, Limits(round_to=round_to))
            keep = select(score, problem)
            cost = problem.cost.total(keep)
            assert cost <= problem.budget
            assert not could_keep_more(keep, problem)
            near[round_to] += cost >= share * problem.budget
    return {round_to: count / pairs for round_to, count in near.items()}


def test_budgets_are_kept_and_spent():
    near = check(5)
    assert min(near.values()) > 0.5, near


@pytest.mark.slow
def test_sixty_budgets_are_kept_and_spent():
    near = check(60)
    assert min(near.values()) > 0.6, near


def test_a_unit_that_could_stay_is_noticed():
    model, units, budget, score = draw(np.random.default_rng(7))
    problem = state_problem(model, units, budget, Limits(round_to=1))
    keep = select(score, problem)
    keep[np.flatnonzero(keep)[0]] = False
    assert could_keep_more(keep, problem)
