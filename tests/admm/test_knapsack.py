"""One level of each group under one limit: brute force, the relaxation, hulls, free levels, many states."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxadmm.admm import knapsack
from onnxadmm.admm.knapsack import choose


def draw_groups(generator, *, groups, levels):
    sizes = generator.integers(1, levels + 1, groups)
    costs = [np.cumsum(generator.uniform(0, 2, size) * generator.integers(0, 2, size)) for size in sizes]
    losses = [np.append(np.cumsum(generator.uniform(0, 1, size - 1) ** 3)[::-1], 0.0) for size in sizes]
    return costs, losses


def total(values, chosen):
    return sum(float(value[index]) for value, index in zip(values, chosen, strict=True))


def brute_force(costs, losses, limit):
    every = itertools.product(*(range(cost.size) for cost in costs))
    return min(total(losses, chosen) for chosen in every if total(costs, chosen) <= limit)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_the_exact_choice_is_the_best_of_all(seed, share):
    costs, losses = draw_groups(np.random.default_rng(seed), groups=4, levels=6)
    least, most = total(costs, [0] * 4), total(costs, [-1] * 4)
    limit = least + share * (most - least)
    chosen = choose(costs, losses, limit, exact=True)
    assert total(costs, chosen) <= limit + 1e-9
    assert total(losses, chosen) == pytest.approx(brute_force(costs, losses, limit + 1e-9), abs=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_the_relaxation_is_within_the_limit_and_no_better(seed, share):
    costs, losses = draw_groups(np.random.default_rng(seed), groups=4, levels=6)
    least, most = total(costs, [0] * 4), total(costs, [-1] * 4)
    limit = least + share * (most - least)
    relaxed = choose(costs, losses, limit, exact=False)
    assert total(costs, relaxed) <= limit + 1e-9
    assert total(losses, relaxed) >= total(losses, choose(costs, losses, limit, exact=True)) - 1e-9


def test_the_relaxation_alone_is_not_the_best():
    # One unit that is worth most per cost leaves no room for the two that are worth more together.
    costs, losses = [np.array([0.0, 6.0]), np.array([0.0, 5.0]), np.array([0.0, 5.0])], [np.array([7.0, 0.0])]
    losses += [np.array([5.0, 0.0]), np.array([5.0, 0.0])]
    np.testing.assert_array_equal(choose(costs, losses, 10.0, exact=False), [1, 0, 0])
    np.testing.assert_array_equal(choose(costs, losses, 10.0, exact=True), [0, 1, 1])


def test_below_the_least_the_first_levels_are_chosen_and_free_ones_are_taken():
    costs, losses = [np.array([2.0, 3.0]), np.array([1.0, 1.0, 4.0])], [np.array([1.0, 0.0]), np.array([3.0, 2.0, 0.0])]
    np.testing.assert_array_equal(choose(costs, losses, 1.0, exact=True), [0, 0])
    np.testing.assert_array_equal(choose(costs, losses, 3.0, exact=True), [0, 1])
    np.testing.assert_array_equal(choose(costs, losses, 9.0, exact=True), [1, 2])


def test_with_fewer_states_than_needed_the_choice_still_fits(monkeypatch):
    costs, losses = draw_groups(np.random.default_rng(3), groups=12, levels=9)
    limit = 0.5 * total(costs, [-1] * 12)
    best = total(losses, choose(costs, losses, limit, exact=True))
    monkeypatch.setattr(knapsack, "STATES", 2)
    few = choose(costs, losses, limit, exact=True)
    assert total(costs, few) <= limit
    assert best <= total(losses, few) <= total(losses, choose(costs, losses, limit, exact=False))


def test_levels_of_one_cost_and_loss_do_not_pay_for_those_below_them():
    costs = [np.array([0.0, 5.0, 5.0, 8.0]), np.array([0.0, 4.0])]
    losses = [np.array([9.0, 3.0, 3.0, 2.5]), np.array([7.0, 0.0])]
    for exact in (True, False):
        assert total(costs, choose(costs, losses, 4.5, exact=exact)) <= 4.5
