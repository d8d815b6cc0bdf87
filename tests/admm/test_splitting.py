"""The scaled form of ADMM on problems whose solution is known."""

import numpy as np
import pytest

from onnxadmm.admm.splitting import Splitting, norm


def test_scaled_admm_finds_the_projection_of_a_quadratic_s_minimiser():
    # minimise |x - a|^2 / 2 subject to 0 <= x <= 1: the solution is clip(a).
    a = np.array([-0.5, 0.3, 1.7])
    x, rho = a.copy(), 0.7
    state = Splitting(x)
    for _ in range(200):
        x = (a + rho * state.target) / (1.0 + rho)
        primal, moved = state.update(x, project=lambda point: np.clip(point, 0.0, 1.0))
    np.testing.assert_allclose(x, [0.0, 0.3, 1.0], atol=1e-6)
    assert primal < 1e-6
    assert moved < 1e-6
    # Stationarity: x - a + rho u = 0.
    np.testing.assert_allclose(rho * state.u, a - x, atol=1e-5)


def test_residuals_and_dual_follow_their_definitions():
    state = Splitting(np.array([3.0, 4.0], dtype=np.float32))
    primal, moved = state.update(np.array([3.0, 4.0], dtype=np.float32), project=lambda x: x * np.float32(0))
    assert primal == pytest.approx(5.0)
    assert moved == pytest.approx(5.0)
    np.testing.assert_array_equal(state.u, [3.0, 4.0])
    np.testing.assert_array_equal(state.target, [-3.0, -4.0])


def test_rescaling_keeps_the_unscaled_dual_when_rho_grows():
    state = Splitting(np.array([2.0]))
    state.update(np.array([2.0]), project=lambda x: x * 0.0)
    before = 1.0 * state.u.copy()
    state.rescale(1.0 / 4.0)
    np.testing.assert_allclose(4.0 * state.u, before)
    np.testing.assert_allclose(state.target, state.z - state.u)


def test_norm_of_many_small_numbers_does_not_lose_them():
    array = np.full((1000, 1000), 1e-4, dtype=np.float32)
    assert norm(array) == pytest.approx(0.1, rel=1e-5)
