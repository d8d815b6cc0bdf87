"""Several budgets at once: all are met, close to the best of all; refusals name the bound and who binds it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.bounds import Bound, Bounds
from onnxadmm.admm.selection import refuse_unreachable, select
from onnxadmm.errors import BudgetError
from tests.admm.test_allocation import SeparableCost, make_case
from tests.admm.test_selection import chain_problem, kept_counts
from tests.admm.tiny import ChainCost


def two_bounds(sizes, first, second, seed=0):
    """A chain whose products and whose units, each at a price of its own, both have a limit."""
    problem = chain_problem(sizes, 0.0)
    prices = SeparableCost(np.repeat(np.random.default_rng(seed).uniform(1, 9, len(sizes)), sizes))
    whole = np.ones(problem.unit_count, dtype=bool)
    bounds = Bounds(
        [
            Bound("--macs 0.5", problem.cost, first * problem.cost.total(whole)),
            Bound("--params 0.5", prices, second * prices.total(whole)),
        ]
    )
    return replace(problem, cost=bounds, budget=bounds.limit)


@pytest.mark.parametrize("seed", range(12))
def test_every_bound_is_met_and_nothing_more_fits(seed):
    generator = np.random.default_rng(seed)
    problem = two_bounds([9, 12, 7, 10], *generator.uniform(0.2, 0.9, 2), seed=seed)
    keep = select(generator.uniform(0, 1, problem.unit_count) ** 2, problem)
    assert all(bound.cost.total(keep) <= bound.limit for bound in problem.cost.bounds)
    for unit in np.flatnonzero(~keep):
        more = keep.copy()
        more[unit] = True
        assert any(bound.cost.total(more) > bound.limit for bound in problem.cost.bounds)


def test_two_bounds_come_close_to_the_best_of_all():
    gaps = []
    for seed in range(30):
        case = make_case(seed, sizes=[6, 5, 6])
        problem = two_bounds(case.sizes, 0.45, 0.55, seed=seed)
        score = np.random.default_rng(seed).uniform(0, 1, problem.unit_count)
        order = [group.start + np.argsort(score[group.start :][: group.count]) for group in problem.groups]
        best = np.inf
        for counts in itertools.product(*(range(1, size + 1) for size in case.sizes)):
            keep = np.ones(problem.unit_count, dtype=bool)
            for steps, count in zip(order, counts, strict=True):
                keep[steps[: len(steps) - count]] = False
            if all(bound.cost.total(keep) <= bound.limit for bound in problem.cost.bounds):
                best = min(best, float(score[~keep].sum()))
        gaps.append(float(score[~select(score, problem)].sum()) / best - 1)
    assert np.mean(gaps) < 0.01
    assert max(gaps) < 0.1


def test_a_single_bound_costs_what_it_says():
    cost = ChainCost(inputs=3, sizes=(4, 5), outputs=2)
    bounds = Bounds([Bound("--macs 0.5", cost, 20.0)])
    keep = np.array([True] * 6 + [False] * 3)
    assert bounds.total(keep) == cost.total(keep)
    np.testing.assert_array_equal(bounds.marginal(keep), cost.marginal(keep))


def test_the_cost_is_that_of_the_fullest_bound_and_rounding_hides_no_excess():
    plenty, scarce = SeparableCost(np.full(3, 1.0)), SeparableCost(np.full(3, 1.0 / 3.0))
    bounds = Bounds([Bound("a", plenty, 300.0), Bound("b", scarce, np.nextafter(1.0, 0.0))])
    keep = np.ones(3, dtype=bool)
    assert scarce.total(keep) > bounds.bounds[1].limit
    assert bounds.total(keep) > bounds.limit
    bounds = Bounds([Bound("a", plenty, 30.0), Bound("b", scarce, 2.0)])
    assert bounds.total(keep) == pytest.approx(15.0)  # half of what is allowed


def test_a_refusal_names_the_bound_its_least_and_the_groups_that_bind_it():
    problem = two_bounds([4, 6], 0.9, 0.9)
    groups = (replace(problem.groups[0], keep_at_most_removed=1), problem.groups[1])
    problem = replace(problem, groups=groups)
    refuse_unreachable(problem)
    tight = Bounds([problem.cost.bounds[0], replace(problem.cost.bounds[1], limit=3.0)])
    for attempt in (refuse_unreachable, lambda problem: select(np.ones(10), problem)):
        with pytest.raises(BudgetError, match=r"--params 0\.5: expected at least .* bind it are g0 \(3 of 4 stay\)"):
            attempt(replace(problem, cost=tight, budget=tight.limit))
    both = Bounds([replace(problem.cost.bounds[0], limit=2.0), replace(problem.cost.bounds[1], limit=3.0)])
    with pytest.raises(BudgetError, match=r"--macs 0\.5: .* and for --params 0\.5 at least"):
        refuse_unreachable(replace(problem, cost=both, budget=both.limit))


def test_at_most_five_groups_are_named():
    problem = chain_problem([4] * 9, 8.0)
    with pytest.raises(BudgetError) as refusal:
        refuse_unreachable(problem)
    assert str(refusal.value).count(" of 4 stay") == 5


def test_a_budget_that_falls_leads_to_all_bounds_together():
    problem = two_bounds([9, 12], 0.5, 0.3)
    whole = problem.cost.total(np.ones(21, dtype=bool))
    score = np.random.default_rng(0).uniform(0, 1, 21)
    kept = [
        sum(kept_counts(select(score, problem, budget=whole * s + problem.budget * (1 - s)), problem))
        for s in (1, 0.5, 0)
    ]
    assert kept[0] == 21
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < kept[1] < kept[0]
