"""Selection under a budget: laws, brute force on small problems, blocks, multiples, refusals, speed."""

import itertools
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup, Problem
from onnxadmm.admm.selection import refuse_unreachable, select, select_per_group
from onnxadmm.errors import BudgetError, OptionError
from tests.admm.tiny import ChainCost, free_group


def chain_problem(sizes, budget, *, inputs=3, outputs=5, keep_at_least=1, multiple=1, keep_counts=None):
    starts = np.cumsum((0, *sizes))[:-1]
    return Problem(
        unit_count=sum(sizes),
        groups=tuple(
            free_group(f"g{i}", int(start), size, keep_at_least=min(keep_at_least, size), multiple=multiple)
            for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
        ),
        readers=(),
        cost=ChainCost(inputs=inputs, sizes=tuple(sizes), outputs=outputs),
        budget=budget,
        connections=(),
        connection_share=1.0,
        keep_counts=keep_counts,
    )


def kept_counts(keep, problem):
    return [int(keep[group.start : group.start + group.count].sum()) for group in problem.groups]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_selection_stays_within_the_budget_and_leaves_no_room_for_another_unit(data):
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    problem = chain_problem(sizes, 0.0)
    full = problem.cost.total(np.ones(problem.unit_count, dtype=bool))
    score = np.array(data.draw(st.lists(st.floats(0, 10), min_size=sum(sizes), max_size=sum(sizes))))
    budget = data.draw(st.floats(0.0, 1.0)) * full
    problem = replace(problem, budget=budget)
    try:
        keep = select(score, problem)
    except BudgetError:
        one_each = np.zeros(problem.unit_count, dtype=bool)
        one_each[[group.start for group in problem.groups]] = True
        assert problem.cost.total(one_each) > budget
        return
    assert problem.cost.total(keep) <= budget
    assert min(kept_counts(keep, problem)) >= 1
    for unit in np.flatnonzero(~keep):
        more = keep.copy()
        more[unit] = True
        assert problem.cost.total(more) > budget


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_within_a_group_no_removed_unit_outscores_a_kept_one(seed):
    generator = np.random.default_rng(seed)
    problem = chain_problem([9, 7, 11], 80.0)
    score = generator.uniform(0, 1, problem.unit_count)
    keep = select(score, problem)
    for group in problem.groups:
        own = slice(group.start, group.start + group.count)
        if (~keep[own]).any():
            assert score[own][keep[own]].min() >= score[own][~keep[own]].max()


@pytest.mark.slow
def test_selection_comes_close_to_brute_force_on_small_chains():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        problem = chain_problem([5, 5], 30.0)
        score = generator.uniform(0, 1, 10) ** 2
        best = 0.0
        for bits in itertools.product([False, True], repeat=10):
            keep = np.array(bits)
            if keep[:5].any() and keep[5:].any() and problem.cost.total(keep) <= 30.0:
                best = max(best, float(score[keep].sum()))
        shares.append(float(score[select(score, problem)].sum()) / best)
    assert np.mean(shares) > 0.995
    assert min(shares) > 0.95


def test_a_random_selection_is_not_close_to_brute_force():
    # Shows that the bar above can be missed.
    generator = np.random.default_rng(0)
    problem = chain_problem([5, 5], 30.0)
    shares = []
    for _ in range(40):
        score = generator.uniform(0, 1, 10) ** 2
        keep = select(generator.uniform(0, 1, 10), problem)
        best = select(score, problem)
        shares.append(float(score[keep].sum() / score[best].sum()))
    assert np.mean(shares) < 0.9


def test_a_budget_of_the_whole_network_keeps_everything():
    problem = chain_problem([4, 6], 1e9)
    assert select(np.zeros(10), problem).all()
    assert select_per_group(np.zeros(10), problem).all()


def test_keep_at_least_and_most_removed_are_honoured():
    problem = chain_problem([10, 10], 70.0, keep_at_least=4)
    score = np.concatenate([np.full(10, 1e-9), np.ones(10)])
    assert kept_counts(select(score, problem), problem) == [4, 6]  # 3*4 + 4*6 + 6*5 = 66
    groups = (replace(problem.groups[0], keep_at_least=1, keep_at_most_removed=3), problem.groups[1])
    problem = replace(problem, groups=groups, budget=120.0)
    assert kept_counts(select(score, problem), problem)[0] >= 7


def test_an_unreachable_budget_is_refused_with_the_least_reachable_cost():
    problem = chain_problem([4, 4], 8.0)  # 3*1 + 1*1 + 1*5 = 9
    for attempt in (lambda: select(np.ones(8), problem), lambda: select_per_group(np.ones(8), problem)):
        with pytest.raises(BudgetError, match="at least 9"):
            attempt()
    with pytest.raises(BudgetError, match="at least 9"):
        refuse_unreachable(problem)
    refuse_unreachable(replace(problem, budget=9.0))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95))
def test_groups_end_at_a_multiple_or_below_the_first_one(seed, share):
    problem = chain_problem([40, 12, 33], 0.0, multiple=8)
    full = problem.cost.total(np.ones(problem.unit_count, dtype=bool))
    problem = replace(problem, budget=share * full)
    keep = select(np.random.default_rng(seed).uniform(0, 1, problem.unit_count), problem)
    assert problem.cost.total(keep) <= problem.budget
    for group, kept in zip(problem.groups, kept_counts(keep, problem), strict=True):
        assert kept < 8 or kept % 8 == 0 or kept == group.count


def test_rounding_begins_with_the_first_multiple():
    for budget, kept in ((7, 7), (8, 8), (9, 8), (15, 8), (16, 16), (17, 16), (19, 19)):
        problem = Problem(
            19, (free_group("g", 0, 19, multiple=8),), (), ChainCost(inputs=1, sizes=(19,), outputs=0), budget, (), 1.0
        )
        assert kept_counts(select(np.linspace(1, 2, 19), problem), problem) == [kept]


def test_what_rounding_leaves_of_the_budget_is_spent_where_it_scores_best():
    # Alone, rounding down would leave both groups at 24; the budget has room for one step of eight more.
    for better in (0, 1):
        room = (32 * 3 + 32 * 24 + 24 * 5.0) if better == 0 else (24 * 3 + 24 * 32 + 32 * 5.0)
        problem = chain_problem([40, 40], room, multiple=8)
        score = np.concatenate([np.linspace(0, 1, 40), np.linspace(0, 1, 40)]) ** 2
        score[better * 40 : better * 40 + 40] *= 1.2
        assert kept_counts(select(score, problem), problem) == ([32, 24] if better == 0 else [24, 32])


def test_every_block_keeps_equally_many():
    blocks = np.repeat([0, 1, 2], 4)
    group = GateGroup("g", 0, 12, keep_at_least=1, keep_at_most_removed=11, multiple=1, blocks=blocks)
    problem = Problem(12, (group,), (), ChainCost(inputs=1, sizes=(12,), outputs=0), 7.0, (), 1.0)
    score = np.concatenate([np.full(4, 9.0), [1.0, 5.0, 3.0, 2.0], np.full(4, 0.1)])
    keep = select(score, problem)
    assert [int(keep[blocks == block].sum()) for block in range(3)] == [2, 2, 2]
    np.testing.assert_array_equal(keep[4:8], [False, True, True, False])


def test_units_outside_every_group_always_stay():
    problem = Problem(6, (free_group("g", 2, 4),), (), ChainCost(inputs=1, sizes=(6,), outputs=1), 7.0, (), 1.0)
    keep = select(np.zeros(6), problem)
    assert keep[:2].all()
    assert keep.sum() == 3


def test_joint_mode_keeps_the_same_share_of_every_group():
    problem = chain_problem([40, 20], 300.0)
    keep = select_per_group(np.random.default_rng(0).uniform(0, 1, 60), problem)
    first, second = kept_counts(keep, problem)
    assert abs(first / 40 - second / 20) <= 1 / 20
    assert problem.cost.total(keep) <= 300.0


def test_joint_mode_reaches_its_targets_as_the_budget_falls():
    problem = chain_problem([40, 20], 500.0, keep_counts=(30, 5))
    score = np.random.default_rng(0).uniform(0, 1, 60)
    full = problem.cost.total(np.ones(60, dtype=bool))
    budgets = [full, 0.7 * full, 30 * 3 + 30 * 5 + 25.0]
    counts = [kept_counts(select_per_group(score, problem, budget=budget), problem) for budget in budgets]
    assert counts[0] == [40, 20]
    assert counts[-1] == [30, 5]
    assert all(first >= 30 and second >= 5 for first, second in counts)


def test_a_score_that_is_not_finite_is_refused():
    problem = chain_problem([4], 20.0)
    for bad in (np.full(4, np.nan), np.full(4, -1.0), np.ones(3)):
        with pytest.raises(OptionError, match="score"):
            select(bad, problem)


@dataclass(frozen=True)
class CountedCost(ChainCost):
    calls: list[int] = None  # type: ignore[assignment]

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        self.calls.append(1)
        return super().marginal(keep)


def test_thousands_of_units_need_few_evaluations_of_the_cost():
    sizes = [2048] * 12
    problem = chain_problem(sizes, 0.0)
    calls: list[int] = []
    cost = CountedCost(inputs=3, sizes=tuple(sizes), outputs=5, calls=calls)
    problem = replace(problem, cost=cost, budget=0.3 * cost.total(np.ones(sum(sizes), dtype=bool)))
    began = time.perf_counter()
    keep = select(np.random.default_rng(0).uniform(0, 1, sum(sizes)), problem)
    assert cost.total(keep) <= problem.budget
    assert len(calls) < 400
    assert time.perf_counter() - began < 20.0
