"""Consensus ADMM reaches the known optimum of convex problems, whatever is shared among how many machines."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.admm.splitting import Splitting
from onnxadmm.cluster.consensus import Consensus, Copy
from onnxadmm.cluster.halves import Rounding

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SIZE = 12


def quadratics(machines: int, seed: int = 3) -> tuple[list[Matrix], list[Vector]]:
    """``f_i(w) = w A_i w / 2 - b_i w``, each with an optimum of its own far from that of the sum."""
    draw = np.random.default_rng([seed, machines])
    roots = [draw.normal(size=(SIZE, SIZE)) for _ in range(machines)]
    return [root @ root.T / SIZE + 0.1 * np.eye(SIZE) for root in roots], [
        3 * draw.normal(size=SIZE) for _ in range(machines)
    ]


def nothing(point: Vector) -> Vector:
    return point


def ball(point: Vector) -> Vector:
    """Project on the ball of radius 1."""
    return point / max(1.0, float(np.linalg.norm(point)))


def at_least_nothing(point: Vector) -> Vector:
    return np.maximum(point, 0.0)


def simplex(point: Vector) -> Vector:
    """Project on the unit simplex, a convex set of sparse points (Held, Wolfe and Crowder 1974)."""
    falling = np.sort(point)[::-1]
    thresholds = (np.cumsum(falling) - 1) / np.arange(1, SIZE + 1)
    return np.maximum(point - thresholds[np.flatnonzero(falling > thresholds)[-1]], 0.0)


def by_projected_gradient(a: list[Matrix], b: list[Vector], project: Callable[[Vector], Vector]) -> Vector:
    """The optimum, found in another way: accelerated projected gradients of the sum."""
    whole, right = sum(a), sum(b)
    step = 1 / np.linalg.eigvalsh(whole)[-1]
    point = before = np.zeros(SIZE)
    for number in range(5000):
        ahead = point + (number / (number + 3)) * (point - before)
        before, point = point, project(ahead - step * (whole @ ahead - right))
    return point


def distributed(
    a: list[Matrix],
    b: list[Vector],
    project: Callable[[Vector], Vector],
    *,
    rounds: int,
    rho: float | None,
    pruning_rho: float,
    steps: int | None = None,
    halves: bool = False,
    forgetful: bool = False,
) -> tuple[Vector, list[Vector]]:
    """Run the method as the driver and the machines do; each solves its part exactly, or takes gradient steps.

    Args:
        halves: what moves is sent in half precision.
        forgetful: what rounding leaves over is lost.

    Returns:
        ``Z`` and the copies.
    """
    consensus, splitting = Consensus(np.zeros(SIZE), rho), Splitting(np.zeros(SIZE))
    machines = [Copy(SIZE, np.float64) for _ in a]
    roundings = [Rounding(SIZE, np.float64) for _ in [0, *a]]
    start, before = consensus.mean, 0.0
    for _ in range(rounds):
        penalty, left = consensus.penalty(len(a)), []
        start = roundings[0].halved(consensus.mean, start).added_to(start) if halves else consensus.mean
        if penalty > 0:
            roundings[0].scale(before / penalty)
        before = penalty
        for copy, rounding, matrix, vector in zip(machines, roundings[1:], a, b, strict=True):
            copy.begin(start, penalty)
            hessian = matrix + (pruning_rho + penalty) * np.eye(SIZE)
            towards = vector + pruning_rho * splitting.target + penalty * (copy.start - copy.dual)
            if steps is None:
                point = np.linalg.solve(hessian, towards)
            else:
                point, rate = copy.start.copy(), 1 / np.linalg.eigvalsh(hessian)[-1]
                for _ in range(steps):
                    gradient = matrix @ point - vector + pruning_rho * (point - splitting.target)
                    point = point - rate * (gradient + copy.pull(point))
            told = rounding.halved(point, start).added_to(start) if halves else point
            copy.end(told)
            left.append(told)
        for rounding in roundings if forgetful else ():
            rounding.scale(0.0)
        mean = consensus.gather(left, gradient=float(np.linalg.norm(b[0])))
        splitting.update(mean, project=project)
    return splitting.z, left


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("machines", range(2, 9))
@pytest.mark.parametrize("project", [nothing, ball, at_least_nothing, simplex])
def test_two_to_eight_machines_reach_the_optimum_of_the_sum(
    machines: int, project: Callable[[Vector], Vector], halves: bool
) -> None:
    a, b = quadratics(machines)
    found, copies = distributed(a, b, project, rounds=1500, rho=1.0, pruning_rho=0.3, halves=halves)
    expected = by_projected_gradient(a, b, project)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for copy in copies:
        np.testing.assert_allclose(copy, expected, atol=1e-6)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("machines", [2, 4])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_few_steps_in_place_of_a_solution_reach_it_too(machines: int, steps: int, halves: bool) -> None:
    a, b = quadratics(machines)
    found, _ = distributed(a, b, at_least_nothing, rounds=3000, rho=1.0, pruning_rho=0.3, steps=steps, halves=halves)
    np.testing.assert_allclose(found, by_projected_gradient(a, b, at_least_nothing), atol=1e-6)


def test_halves_end_elsewhere_where_what_rounding_leaves_over_is_lost() -> None:
    """What it is kept for: the duals add up every rounding."""
    a, b = quadratics(4)
    found, _ = distributed(a, b, nothing, rounds=1500, rho=1.0, pruning_rho=0.3, halves=True, forgetful=True)
    assert np.abs(found - np.linalg.solve(sum(a), sum(b))).max() > 1e-5


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("first", [None, 1e-4, 1e4])
def test_a_penalty_that_is_far_off_at_first_is_balanced(first: float | None, halves: bool) -> None:
    a, b = quadratics(4)
    found, _ = distributed(a, b, nothing, rounds=2000, rho=first, pruning_rho=0.3, halves=halves)
    np.testing.assert_allclose(found, np.linalg.solve(sum(a), sum(b)), atol=1e-6)


def test_without_duals_steps_on_different_data_end_elsewhere() -> None:
    """What the duals are for: the mean of steps that each machine takes on its own is no optimum."""
    a, b = quadratics(4)
    consensus: Consensus[np.float64] = Consensus(np.zeros(SIZE))
    for _ in range(2000):
        left = []
        for matrix, vector in zip(a, b, strict=True):
            point = consensus.mean.copy()
            for _ in range(5):
                point -= 0.1 * (matrix @ point - vector)
            left.append(point)
        consensus.gather(left)
    assert np.abs(consensus.mean - np.linalg.solve(sum(a), sum(b))).max() > 0.1


def test_the_duals_of_machines_and_of_the_pruning_are_those_of_the_book() -> None:
    """``U_i = U + D_i`` and ``Z`` follow Boyd et al. (7.6) to (7.8), whatever the copies are."""
    draw = np.random.default_rng(0)
    consensus, splitting = Consensus(np.zeros(SIZE), 1.0), Splitting(np.zeros(SIZE))
    copies = [Copy(SIZE, np.float64) for _ in range(3)]
    duals, z = [np.zeros(SIZE) for _ in copies], np.zeros(SIZE)
    for number in range(6):
        left = [draw.normal(size=SIZE) for _ in copies]
        if number:
            z = simplex(np.mean([w + u for w, u in zip(left, duals, strict=True)], axis=0))
            duals = [u + w - z for w, u in zip(left, duals, strict=True)]
        else:  # a first round that all leave where it began: nothing to step
            left = [np.zeros(SIZE) for _ in copies]
        for copy, point in zip(copies, left, strict=True):
            copy.begin(consensus.mean, 1.0)
            copy.end(point)
        splitting.update(consensus.gather(left), project=simplex if number else nothing)
        for copy, dual in zip(copies, duals, strict=True):
            mine = copy.dual + copy._left - consensus.mean  # as ``begin`` will have it
            np.testing.assert_allclose(splitting.u + mine, dual, atol=1e-12)
        np.testing.assert_allclose(splitting.z, z, atol=1e-12)


def test_one_machine_pays_nothing_and_is_the_mean_to_the_bit() -> None:
    consensus, copy = Consensus(np.zeros(5, np.float32), 3.0), Copy(5, np.float32)
    draw = np.random.default_rng(1)
    for _ in range(4):
        copy.begin(consensus.mean, consensus.penalty(1))
        left = draw.normal(size=5).astype(np.float32)
        copy.end(left)
        assert not copy.pull(left).any()
        np.testing.assert_array_equal(consensus.gather([left]), left)
    assert not copy.dual.any()


def test_a_machine_that_comes_back_forgets_its_dual() -> None:
    copy = Copy(2, np.float64)
    copy.begin(np.zeros(2), 1.0)
    copy.end(np.ones(2))
    copy.begin(np.zeros(2), 1.0)
    assert copy.dual.any()
    copy.forget()
    copy.begin(np.full(2, 5.0), 1.0)
    assert not copy.dual.any()


def test_rho_times_the_dual_stays_when_rho_changes() -> None:
    copy = Copy(1, np.float64)
    copy.begin(np.zeros(1), 2.0)
    copy.end(np.ones(1))
    copy.begin(np.zeros(1), 8.0)
    assert 8.0 * copy.dual[0] == 2.0 * 1.0
