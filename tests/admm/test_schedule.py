"""Curves: ends, monotony, known points."""

import itertools

import numpy as np
import pytest

from onnxadmm.admm.schedule import budget_at, learning_rate_at, penalty_at


def test_the_budget_falls_from_the_whole_network_to_the_target_and_stays():
    curve = [budget_at(p, full=100.0, target=10.0, ramp=0.6) for p in np.linspace(0, 1, 101)]
    assert curve[0] == 100.0
    assert curve[30] == pytest.approx(10.0 + 90.0 / 8)
    assert all(value == 10.0 for value in curve[60:])
    assert all(a >= b for a, b in itertools.pairwise(curve))


def test_a_ramp_of_zero_asks_for_the_target_at_once():
    assert budget_at(0.0, full=100.0, target=10.0, ramp=0.0) == 10.0


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
