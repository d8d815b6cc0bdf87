"""Removal orders, against least squares for every single choice, computed anew."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.calibrate.order import FixedReading, LayerReading, removal_order

DoubleArray = NDArray[np.float64]


def _problem(units: int, taps: int, outputs: int, seed: int) -> tuple[DoubleArray, DoubleArray, NDArray[np.int64]]:
    """Second moments of correlated rows, a weight, and the unit of each row."""
    generator = np.random.default_rng(seed)
    width = units * taps
    rows = generator.standard_normal((400, width)) @ generator.standard_normal((width, width))
    return rows.T @ rows, generator.standard_normal((width, outputs)), np.repeat(np.arange(units), taps)


def _error(second: DoubleArray, weight: DoubleArray, stays: NDArray[np.bool_]) -> tuple[float, DoubleArray]:
    """Relative error of the best weight on the rows that stay, and that weight: by the normal equations."""
    best = np.zeros_like(weight)
    best[stays] = np.linalg.solve(second[np.ix_(stays, stays)], (second @ weight)[stays])
    missing = weight - best
    return float(np.einsum("wo,wo->", missing, second @ missing) / np.einsum("wo,wo->", weight, second @ weight)), best


@pytest.mark.parametrize(("units", "taps"), [(6, 1), (5, 3)])
def test_losses_are_errors_of_the_best_fit_without_the_unit(units: int, taps: int) -> None:
    second, weight, owners = _problem(units, taps, 4, seed=0)
    reading = LayerReading.of(second, weight, owners, count=units, ridge=1e-12)
    expected = [_error(second, weight, owners != unit)[0] for unit in range(units)]
    np.testing.assert_allclose(reading.losses(), expected, rtol=1e-5)


def test_what_is_left_takes_over_as_well_as_it_can() -> None:
    second, weight, owners = _problem(6, 2, 4, seed=1)
    reading = LayerReading.of(second, weight, owners, count=6, ridge=1e-12)
    gone = np.array([4, 1])
    before = _error(second, weight, ~np.isin(owners, gone))
    for unit in gone:  # one after the other is as all at once
        reading.remove(np.array([unit]))
    np.testing.assert_allclose(reading.weight, before[1], rtol=1e-4, atol=1e-5)
    further = [
        _error(second, weight, ~np.isin(owners, [*gone, unit]))[0] - before[0] for unit in range(6) if unit not in gone
    ]
    np.testing.assert_allclose(np.delete(reading.losses(), gone), further, rtol=1e-4)
    assert not reading.losses()[gone].any()


def test_the_order_is_near_the_best_of_all_choices() -> None:
    close = 0
    for seed in range(20):
        second, weight, owners = _problem(7, 1, 3, seed)
        reading = LayerReading.of(second, weight, owners, count=7, ridge=1e-12)
        order = removal_order([reading], np.zeros(7, np.int64), fewest=1, share=1e-9)
        found = _error(second, weight, ~np.isin(owners, order[:3]))[0]
        best = min(_error(second, weight, ~np.isin(owners, gone))[0] for gone in itertools.combinations(range(7), 3))
        assert found < 4 * best
        close += found < 1.2 * best
    assert close >= 13


def test_units_of_no_group_of_this_one_are_left_alone() -> None:
    second, weight, owners = _problem(6, 1, 3, seed=2)
    local = np.where(owners < 4, owners, -1)
    reading = LayerReading.of(second, weight, local, count=4, ridge=1e-12)
    order = removal_order([reading], np.zeros(4, np.int64), fewest=1, share=1e-9)
    assert sorted(order[:, 0]) == [0, 1, 2, 3]
    assert np.abs(reading.weight[4:]).min() > 0


def test_every_step_takes_one_unit_of_each_block() -> None:
    second, weight, owners = _problem(6, 1, 3, seed=3)
    reading = LayerReading.of(second, weight, owners, count=6, ridge=1e-12)
    blocks = np.array([0, 1, 0, 1, 0, 1])
    order = removal_order([reading], blocks, fewest=1, share=1e-9)
    assert order.shape == (3, 2)
    np.testing.assert_array_equal(blocks[order], [[0, 1]] * 3)
    assert sorted(order.reshape(-1)) == list(range(6))


def test_it_stops_where_it_is_asked_to_and_leaves_the_fewest() -> None:
    second, weight, owners = _problem(20, 1, 3, seed=4)
    reading = LayerReading.of(second, weight, owners, count=20, ridge=1e-12)
    seen: dict[int, int] = {}

    def stop(left: int) -> None:
        seen[left] = int((np.abs(reading.weight).sum(axis=1) > 0).sum())

    order = removal_order(
        [reading], np.zeros(20, np.int64), fewest=4, share=0.3, stops=[15, 10, 4, 2, 20], on_stop=stop
    )
    assert seen == {15: 15, 10: 10, 4: 4}
    assert sorted(order[:, 0]) == list(range(20))


def test_fixed_scores_are_an_order_of_their_own() -> None:
    order = removal_order([FixedReading(np.array([3.0, 1.0, 2.0]))], np.zeros(3, np.int64), fewest=1, share=0.1)
    assert order[:, 0].tolist() == [1, 2, 0]


def test_readings_count_by_their_relative_errors() -> None:
    second, weight, owners = _problem(5, 1, 3, seed=5)
    small = LayerReading.of(second, 1e-3 * weight, owners, count=5, ridge=1e-12)
    large = LayerReading.of(1e6 * second, weight, owners, count=5, ridge=1e-12)
    np.testing.assert_allclose(small.losses(), large.losses(), rtol=1e-6)


def test_of_units_that_make_up_for_each_other_one_stays_however_many_go_at_a_time() -> None:
    random = np.random.default_rng(6)
    rows = np.repeat(random.standard_normal((4000, 32)), 2, axis=1) + 0.01 * random.standard_normal((4000, 64))
    second, weight = rows.T @ rows, random.standard_normal((64, 8))
    errors = []
    for share in (1e-9, 0.5):
        reading = LayerReading.of(second, weight, np.arange(64), count=64, ridge=1e-9)
        order = removal_order([reading], np.zeros(64, np.int64), fewest=32, share=share)
        stays = np.ones(64, np.bool_)
        stays[order[:32, 0]] = False
        errors.append(_error(second, weight, stays)[0])
    assert errors[1] < 2 * errors[0]


def test_units_that_go_at_once_lose_what_they_lose_one_after_the_other() -> None:
    second, weight, owners = _problem(6, 2, 4, seed=7)
    reading = LayerReading.of(second, weight, owners, count=6, ridge=1e-12)
    gone = np.array([5, 2, 3])
    assert np.isclose(reading.together(gone), _error(second, weight, ~np.isin(owners, gone))[0], rtol=1e-4)
    assert FixedReading(np.array([3.0, 1.0, 2.0])).together(np.array([0, 2])) == 5.0
