"""Fits, against numpy's own least squares, and against what they are for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.calibrate.fit import Bounds, Sample, fit

FloatArray = NDArray[np.float32]


def _sample(blocks: int, count: int, width: int, outputs: int, seed: int = 0) -> tuple[Sample, NDArray[np.float64]]:
    """Correlated rows, and what a random weight makes of them, with noise."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((blocks, width, width))
    rows = generator.standard_normal((blocks, count, width)) @ mixing + 0.5
    weight = generator.standard_normal((blocks, width, outputs))
    targets = rows @ weight + 0.1 * generator.standard_normal((blocks, count, outputs))
    return Sample(rows.astype(np.float32), targets.astype(np.float32)), weight


@pytest.mark.parametrize("with_shift", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
def test_with_hardly_any_ridge_it_is_least_squares(blocks: int, with_shift: bool) -> None:
    sample, weight = _sample(blocks, 200, 8, 3)
    stays = np.random.default_rng(1).random((blocks, 8)) < 0.6
    found = fit(sample, weight, stays, with_shift=with_shift, ridges=[1e-9])
    for block in range(blocks):
        rows = sample.rows[block][:, stays[block]].astype(np.float64)
        columns = np.hstack([rows, np.ones((200, 1))]) if with_shift else rows
        expected, *_ = np.linalg.lstsq(columns, sample.targets[block].astype(np.float64), rcond=None)
        np.testing.assert_allclose(found.matrix[block, stays[block]], expected[: rows.shape[1]], rtol=1e-3, atol=1e-3)
        if with_shift:
            np.testing.assert_allclose(found.shift[block], expected[-1], rtol=1e-3, atol=1e-3)
        assert not found.matrix[block, ~stays[block]].any()


def test_without_an_offset_nothing_is_shifted() -> None:
    sample, weight = _sample(1, 50, 4, 2)
    assert not fit(sample, weight, np.ones((1, 4), bool), with_shift=False, ridges=[0.1]).shift.any()


@pytest.mark.parametrize("with_shift", [False, True])
def test_more_columns_than_rows_give_what_the_large_system_gives(with_shift: bool) -> None:
    sample, weight = _sample(1, 12, 40, 3)
    stays = np.random.default_rng(1).random((1, 40)) < 0.8
    found = fit(sample, weight, stays, with_shift=with_shift, ridges=[1e-2])
    rows = sample.rows[0][:, stays[0]].astype(np.float64)
    goal = sample.targets[0].astype(np.float64)
    if with_shift:
        rows, goal = rows - rows.mean(0), goal - goal.mean(0)
    # The ridge is relative to the trace of the system that is solved, that of the rows where it is the smaller one.
    strength = 1e-2 * np.trace(rows.T @ rows) / rows.shape[1]
    before = weight[0, stays[0]]
    expected = before + np.linalg.solve(
        rows.T @ rows + strength * np.eye(rows.shape[1]), rows.T @ (goal - rows @ before)
    )
    np.testing.assert_allclose(found.matrix[0, stays[0]], expected, rtol=1e-3, atol=1e-3)


def test_a_strong_ridge_leaves_the_weight_as_it_was() -> None:
    sample, weight = _sample(1, 100, 6, 2)
    stays = np.array([[True, True, False, True, True, True]])
    found = fit(sample, weight, stays, with_shift=False, ridges=[1e9])
    np.testing.assert_allclose(found.matrix[stays], weight[stays], rtol=1e-4)


def test_rows_of_zeros_leave_the_weight_as_it_was() -> None:
    weight = np.random.default_rng(0).standard_normal((1, 4, 2))
    zeros = Sample(np.zeros((1, 30, 4), np.float32), np.zeros((1, 30, 2), np.float32))
    found = fit(zeros, weight, np.ones((1, 4), bool), with_shift=True, ridges=[1e-2])
    np.testing.assert_array_equal(found.matrix, weight)


def test_of_several_ridges_the_one_is_taken_that_serves_other_rows_best() -> None:
    # Hardly more rows than columns: with no ridge to speak of the fit would learn the noise.
    sample, weight = _sample(1, 24, 20, 3)
    noisy = Sample(sample.rows, sample.targets + 3 * np.random.default_rng(2).standard_normal((1, 24, 3)).astype("f4"))
    assert fit(noisy, weight, np.ones((1, 20), bool), with_shift=False, ridges=[1e-9, 1.0]).ridge == 1.0
    many, weight = _sample(1, 4000, 8, 3)
    stays = np.ones((1, 8), bool)
    stays[0, 3] = False
    assert fit(many, weight, stays, with_shift=False, ridges=[1e-9, 10.0]).ridge == 1e-9


def _counted(outputs: NDArray[np.float64], targets: FloatArray, bounds: Bounds) -> float:
    """Sum of squares in which a target beyond a bound counts by how far the output is on the other side."""
    missing = outputs - targets
    missing = np.where(targets <= bounds.low, np.maximum(outputs - bounds.low, 0), missing)
    missing = np.where(targets >= bounds.high, np.minimum(outputs - bounds.high, 0), missing)
    return float(np.square(missing).sum())


@pytest.mark.parametrize("high", [np.inf, 1.5])
def test_each_round_lowers_what_counts_in_front_of_a_bound(high: float) -> None:
    for seed in range(5):
        sample, weight = _sample(1, 600, 10, 4, seed)
        shape = (1, 1, 4)
        bounds = Bounds(np.full(shape, -0.5, np.float32), np.full(shape, high, np.float32))
        stays = np.ones((1, 10), bool)
        stays[0, :2] = False
        errors = []
        for rounds in range(4):
            found = fit(sample, weight, stays, with_shift=True, ridges=[1e-9], bounds=bounds, rounds=rounds)
            outputs = sample.rows.astype(np.float64) @ found.matrix + found.shift[:, None]
            errors.append(_counted(outputs, sample.targets, bounds))
        assert errors[0] > errors[1] > errors[2] > errors[3]


def test_outputs_beyond_a_bound_meet_targets_beyond_it() -> None:
    bounds = Bounds(np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), 6, np.float32))
    targets = np.array([[-2, -2, 3, 9, 9]], np.float32)[..., None]
    outputs = np.array([[-5, 1, 4, 7, 2]], np.float32)[..., None]
    np.testing.assert_array_equal(bounds.reached(targets, outputs)[0, :, 0], [-5, 0, 3, 7, 6])
