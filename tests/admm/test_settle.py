"""Choices that keep a limit on what is measured, though what is told of it is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.bounds import Bound, Bounds
from onnxadmm.admm.selection import select
from onnxadmm.admm.settle import AIM, settle
from onnxadmm.errors import BudgetError
from tests.admm.test_selection import chain_problem


class Told:
    """A cost that is told of by a chain's products and takes something else."""

    def __init__(self, cost, truth):
        self._cost, self._truth, self._factor = cost, truth, 1.0
        self.measured = []

    def total(self, keep):
        return self._factor * self._cost.total(keep)

    def marginal(self, keep):
        return self._factor * self._cost.marginal(keep)

    def measure(self, keep):
        self.measured.append(self._truth(keep))
        return self.measured[-1]

    def correct(self, factor):
        self._factor *= factor


class Flat(Told):
    """One that is told to follow its units by far less than it does."""

    def __init__(self, cost, truth, fixed, slope):
        super().__init__(cost, truth)
        self._fixed, self._slope = fixed, slope

    def total(self, keep):
        return self._factor * (self._fixed + self._slope * self._cost.total(keep))

    def marginal(self, keep):
        return self._slope * super().marginal(keep)


def measured_problem(truth, share, sizes=(40, 50, 60, 40)):
    problem = chain_problem(list(sizes), 0.0)
    told = Told(problem.cost, lambda keep: truth(problem.cost, keep))
    limit = share * truth(problem.cost, np.ones(problem.unit_count, bool))
    bounds = Bounds([Bound("--latency", told, AIM * limit, measured=told)])
    return replace(problem, cost=bounds, budget=bounds.limit), told, limit


@pytest.mark.parametrize("share", [0.8, 0.5, 0.25])
@pytest.mark.parametrize(
    "truth",
    [
        lambda cost, keep: cost.total(keep),
        lambda cost, keep: 2.5 * cost.total(keep),
        lambda cost, keep: 900.0 + cost.total(keep) ** 0.9,
        lambda cost, keep: cost.total(keep) + 20.0 * np.count_nonzero(keep),
    ],
)
def test_what_is_measured_keeps_its_limit_and_nearly_fills_it(truth, share):
    problem, told, limit = measured_problem(truth, share)
    score = np.random.default_rng(0).uniform(0, 1, problem.unit_count)
    keep = settle(problem, lambda: select(score, problem))
    assert 0.92 * limit <= truth(problem.cost.bounds[0].cost._cost, keep) <= limit
    assert len(told.measured) <= 12


def test_a_noisy_measurement_never_ends_above_what_it_measured():
    generator = np.random.default_rng(1)
    problem, told, limit = measured_problem(
        lambda cost, keep: cost.total(keep) * np.exp(generator.normal(0, 0.05)), 0.5
    )
    score = generator.uniform(0, 1, problem.unit_count)
    settle(problem, lambda: select(score, problem))
    assert min(told.measured) <= limit


@pytest.mark.parametrize("share", [0.8, 0.5, 0.25])
def test_a_measurement_that_is_too_low_by_chance_is_not_believed(share):
    measured = set()

    def truth(cost, keep):
        first = keep.tobytes() not in measured and not keep.all()
        measured.add(keep.tobytes())
        return 1.3 * cost.total(keep) * (0.93 if first else 1.0)

    problem, told, limit = measured_problem(truth, share)
    score = np.random.default_rng(0).uniform(0, 1, problem.unit_count)
    keep = settle(problem, lambda: select(score, problem))
    assert 0.85 * limit <= told._truth(keep) <= limit


def test_where_nothing_is_measured_the_first_choice_stands():
    problem = replace(chain_problem([8, 8], 0.0), budget=40.0)
    calls = []

    def choose():
        calls.append(1)
        return np.ones(problem.unit_count, bool)

    settle(problem, choose)
    assert len(calls) == 1


def test_a_limit_out_of_reach_is_refused():
    problem, _, _ = measured_problem(lambda cost, keep: cost.total(keep), 1e-6)
    score = np.ones(problem.unit_count)
    with pytest.raises(BudgetError, match="--latency"):
        settle(problem, lambda: select(score, problem))


def test_a_floor_that_nothing_tells_of_is_found_out():
    problem, told, limit = measured_problem(lambda cost, keep: 3000.0 + cost.total(keep), 0.3)
    score = np.random.default_rng(0).uniform(0, 1, problem.unit_count)
    keep = settle(problem, lambda: select(score, problem))
    assert 0.95 * limit <= told._truth(keep) <= limit


@pytest.mark.parametrize("share", [0.8, 0.5, 0.4])
def test_a_whole_network_told_far_too_cheap_is_not_left_whole(share):
    # Corrected by what the whole one takes, even the smallest is told to be too dear.
    problem, told, limit = measured_problem(lambda cost, keep: cost.total(keep), share)
    dense = told.total(np.ones(problem.unit_count, bool))
    flat = Flat(told._cost, told._truth, 0.7 * share * dense, 0.2 * share)
    bounds = Bounds([Bound("--latency", flat, AIM * limit, measured=flat)])
    problem = replace(problem, cost=bounds, budget=bounds.limit)
    score = np.random.default_rng(0).uniform(0, 1, problem.unit_count)
    keep = settle(problem, lambda: select(score, problem))
    assert flat.measured[0] == dense
    assert 0.85 * limit <= flat._truth(keep) <= limit


def test_a_limit_below_the_floor_leaves_the_nearest_choice():
    problem, told, limit = measured_problem(lambda cost, keep: 3000.0 + cost.total(keep), 0.2)
    score = np.random.default_rng(0).uniform(0, 1, problem.unit_count)
    keep = settle(problem, lambda: select(score, problem))
    assert limit < told._truth(keep) == min(told.measured)
