"""Projections against oracles that share nothing with them: optimality conditions, brute force, random rivals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxadmm.admm.projections import project_box_budget, project_sphere, top_k_mask, top_k_masks
from onnxadmm.errors import OptionError

points = arrays(np.float64, st.integers(1, 12), elements=st.floats(-3, 3, width=32))


def is_box_budget_optimum(x, z, cost, budget, tolerance=1e-7):
    """KKT: feasible, and one multiplier t >= 0 explains every coordinate (complementary slackness for t)."""
    if (z < -tolerance).any() or (z > 1 + tolerance).any() or cost @ z > budget + tolerance * (1 + budget):
        return False
    lowest, highest = 0.0, np.inf
    for xi, zi, ci in zip(x, z, cost, strict=True):
        slack = xi - zi  # = t c + (multiplier of z <= 1) - (multiplier of z >= 0)
        if ci == 0:
            if abs(zi - min(max(xi, 0), 1)) > tolerance:
                return False
        elif zi <= tolerance:
            lowest = max(lowest, slack / ci - tolerance / ci)
        elif zi >= 1 - tolerance:
            highest = min(highest, slack / ci + tolerance / ci)
        else:
            lowest = max(lowest, slack / ci - tolerance / ci)
            highest = min(highest, slack / ci + tolerance / ci)
    if lowest > highest:
        return False
    tight = cost @ z >= budget - tolerance * (1 + budget)
    return tight or lowest <= 0.0


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(x=points, data=st.data())
def test_box_budget_projection_meets_the_optimality_conditions(x, data):
    cost = data.draw(arrays(np.float64, x.size, elements=st.sampled_from([0.0, 0.5, 1.0, 3.0, 40.0])))
    budget = data.draw(st.floats(0.0, 1.0)) * float(cost.sum())
    z = project_box_budget(x, cost=cost, budget=budget)
    assert is_box_budget_optimum(x, z, cost, budget)


@settings(max_examples=100, deadline=None)
@given(x=points, seed=st.integers(0, 1000))
def test_no_feasible_point_is_nearer_than_the_box_budget_projection(x, seed):
    generator = np.random.default_rng(seed)
    cost = generator.uniform(0.1, 5.0, x.size)
    budget = float(generator.uniform(0.0, cost.sum()))
    z = project_box_budget(x, cost=cost, budget=budget)
    rivals = generator.uniform(0.0, 1.0, (200, x.size))
    rivals *= np.minimum(1.0, budget / (rivals @ cost))[:, None]
    assert ((rivals - x) ** 2).sum(axis=1).min() >= ((z - x) ** 2).sum() - 1e-9


def test_the_optimality_oracle_rejects_a_scaled_and_an_infeasible_point():
    x, cost = np.array([0.9, 0.8, 0.1]), np.array([1.0, 2.0, 1.0])
    right = project_box_budget(x, cost=cost, budget=1.0)
    assert is_box_budget_optimum(x, right, cost, 1.0)
    assert not is_box_budget_optimum(x, np.clip(x, 0, 1) / (cost @ x), cost, 1.0)
    assert not is_box_budget_optimum(x, np.clip(x, 0, 1), cost, 1.0)


def test_box_budget_projection_spends_exactly_the_budget_for_thousands_of_units():
    generator = np.random.default_rng(0)
    x, cost = generator.normal(0.7, 0.5, 20_000), generator.uniform(1.0, 1e6, 20_000)
    z = project_box_budget(x, cost=cost, budget=0.1 * float(cost.sum()))
    assert cost @ z == pytest.approx(0.1 * cost.sum(), rel=1e-9)


def test_box_budget_projection_without_budget_left_closes_every_unit_that_costs():
    z = project_box_budget(np.array([0.4, 2.0, 0.3]), cost=np.array([1.0, 3.0, 0.0]), budget=0.0)
    np.testing.assert_allclose(z, [0.0, 0.0, 0.3], atol=1e-12)


def test_box_budget_projection_refuses_a_negative_budget():
    with pytest.raises(OptionError, match="budget"):
        project_box_budget(np.ones(2), cost=np.ones(2), budget=-1.0)


@settings(max_examples=200, deadline=None)
@given(x=points, seed=st.integers(0, 1000))
def test_sphere_projection_lies_on_the_sphere_and_no_point_of_it_is_nearer(x, seed):
    z = project_sphere(x)
    assert np.linalg.norm(z - 0.5) ** 2 == pytest.approx(x.size / 4)
    rivals = np.random.default_rng(seed).standard_normal((200, x.size))
    rivals = 0.5 + rivals * (np.sqrt(x.size) / 2 / np.linalg.norm(rivals, axis=1, keepdims=True))
    assert np.linalg.norm(rivals - x, axis=1).min() >= np.linalg.norm(z - x) - 1e-9


def test_sphere_projection_of_the_centre_keeps_everything():
    np.testing.assert_array_equal(project_sphere(np.full(5, 0.5)), np.ones(5))


def test_corners_of_the_cube_are_fixed_points_of_the_sphere_projection():
    for corner in itertools.product([0.0, 1.0], repeat=4):
        np.testing.assert_allclose(project_sphere(np.array(corner)), corner, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    x=arrays(np.float32, st.integers(1, 8), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])),
    data=st.data(),
)
def test_top_k_is_the_best_of_all_supports_of_its_size(x, data):
    kept = data.draw(st.integers(0, x.size))
    mask = top_k_mask(np.abs(x), kept)
    assert mask.sum() == kept
    best = max(sum(float(x[i]) ** 2 for i in support) for support in itertools.combinations(range(x.size), kept))
    assert float((x[mask].astype(np.float64) ** 2).sum()) == pytest.approx(best)


def test_top_k_settles_ties_by_position():
    mask = top_k_mask(np.ones((2, 3), dtype=np.float32), 4)
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])


def test_one_threshold_holds_for_all_tensors_together():
    magnitudes = {"a": np.array([5, 1, 4], dtype=np.float32), "b": np.array([[3, 0.5]], dtype=np.float32)}
    masks = top_k_masks(magnitudes, 3)
    np.testing.assert_array_equal(masks["a"], [True, False, True])
    np.testing.assert_array_equal(masks["b"], [[True, False]])


def test_top_k_refuses_more_than_there_are():
    with pytest.raises(OptionError, match="connections"):
        top_k_mask(np.ones(3, dtype=np.float32), 4)
