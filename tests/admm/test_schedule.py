"""Curves: ends, monotony, known points."""

import itertools

import numpy as np
import pytest

from onnxadmm.admm.schedule import Schedule, budget_at, learning_rate_at, penalty_at
from onnxadmm.admm.settings import Settings


def test_the_budget_falls_from_the_whole_network_to_the_target_and_stays():
    curve = [budget_at(p, full=100.0, target=10.0, ramp=0.6) for p in np.linspace(0, 1, 101)]
    assert curve[0] == pytest.approx(100.0)
    assert curve[30] == pytest.approx(10.0 ** (1 + 0.5**1.5))
    assert all(value == 10.0 for value in curve[60:])
    assert all(a >= b for a, b in itertools.pairwise(curve))


def test_each_step_of_the_budget_takes_a_smaller_share_than_the_one_before():
    curve = np.array([budget_at(p, full=1e6, target=1e4, ramp=0.5) for p in np.linspace(0, 0.5, 41)])
    shares = 1.0 - curve[1:] / curve[:-1]
    assert (np.diff(shares) < 0).all()
    assert shares.max() < 0.17


def test_a_ramp_of_zero_asks_for_the_target_at_once():
    assert budget_at(0.0, full=100.0, target=10.0, ramp=0.0) == 10.0


def test_a_budget_above_the_whole_network_stays_what_it_is():
    assert budget_at(0.0, full=100.0, target=float("inf"), ramp=0.6) == float("inf")
    assert budget_at(0.3, full=100.0, target=100.0, ramp=0.6) == 100.0


def test_the_penalty_grows_geometrically():
    assert penalty_at(0.0, first=1e-3, last=1.0) == pytest.approx(1e-3)
    assert penalty_at(1 / 3, first=1e-3, last=1.0) == pytest.approx(1e-2)
    assert penalty_at(1.0, first=1e-3, last=1.0) == pytest.approx(1.0)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_hundredth():
    rates = [learning_rate_at(p, peak=2.0, warm_up=0.1) for p in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(2.0)
    assert int(np.argmax(rates)) == 10
    assert rates[-1] == pytest.approx(0.02)
    assert min(rates) > 0


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    assert learning_rate_at(0.0, peak=1.0, warm_up=0.0) == pytest.approx(1.0)


def test_iterations_share_the_steps_of_a_run_without_gap_and_read_every_curve():
    settings = Settings(epochs=3, iterations_per_epoch=4, warm_up=0.1)
    schedule = Schedule(settings, steps=30, iterations=12, full=100.0, budget=10.0)
    moments = [schedule.at(iteration) for iteration in range(1, 13)]
    assert [moment.steps_after for moment in moments] == [schedule.steps_before(i) for i in range(2, 14)]
    assert sorted({len(moment.learning_rates) for moment in moments}) == [2, 3]
    rates = [rate for moment in moments for rate in moment.learning_rates]
    assert rates == [learning_rate_at((s + 0.5) / 30, peak=settings.learning_rate, warm_up=0.1) for s in range(30)]
    assert (moments[0].gate_rho, moments[0].connection_rho) == (1e-3, 1e-4)
    assert (moments[-1].budget, moments[-1].connection_power) == (10.0, 1.0)
