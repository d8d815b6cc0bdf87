"""Prices are found again where there are any, and stay common where the plans do not tell."""

from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.latency.fit import Prices, fit, rows_of
from onnxadmm.latency.work import WHOLE, Work
from onnxadmm.rules.facts import CostTerm

GROUPS, UNITS = 6, 32


def chain() -> Work:
    """Six groups of 32 units in a row: a layer from each to the next, and what each writes."""
    axes = [np.arange(UNITS) + UNITS * group for group in range(GROUPS)]
    macs = [CostTerm(f"layer{n}", 9.0 * (n + 1), (axes[n], axes[n + 1])) for n in range(GROUPS - 1)]
    written = [CostTerm(f"out{n}", 4.0, (axis,)) for n, axis in enumerate(axes)]
    return Work(tuple(macs), tuple(written), GROUPS * UNITS)


def plans(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Random counts of every group."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        keep = np.zeros(GROUPS * UNITS, np.bool_)
        for group in range(GROUPS):
            keep[UNITS * group :][: generator.integers(2, UNITS + 1)] = True
        found.append(keep)
    return found


@pytest.mark.parametrize("step", [1, 8])
def test_what_follows_common_prices_is_told_exactly(step: int) -> None:
    work = chain()
    macs, written, _ = work.shares()
    truth = Prices(0.1, (0.7 * macs + 0.2 * written)[None])
    known, new = (rows_of(work, plans(20, seed=seed), steps=(step,)) for seed in (0, 1))
    found = fit(work, known, truth.of(known))
    np.testing.assert_allclose(found.of(new), truth.of(new), rtol=1e-3)


def test_a_layer_that_is_dearer_than_its_products_is_found() -> None:
    work = chain()
    macs, written, _ = work.shares()
    dear = macs * np.where(np.arange(macs.size) == 2, 4.0, 1.0)
    truth = Prices(0.05, (0.5 * dear + 0.1 * written)[None])
    known, new = (rows_of(work, plans(60, seed=seed), steps=(1,)) for seed in (0, 1))
    ratios = truth.of(known) * np.exp(np.random.default_rng(3).normal(0, 0.01, 60))  # measured to a percent
    found = fit(work, known, ratios)
    assert np.abs(found.of(new) / truth.of(new) - 1).mean() < 0.01
    assert found.terms[0, 2] / macs[2] > 2.5 * found.terms[0, 0] / macs[0]


def test_lengths_that_fill_vectors_are_told_from_those_that_do_not() -> None:
    work = chain()
    macs, written, _ = work.shares()
    truth = Prices(0.05, np.stack([0.0 * macs, 0.85 * macs + 0.1 * written]))
    known, new = (rows_of(work, plans(40, seed=seed), steps=(1, 8)) for seed in (0, 1))
    found = fit(work, known, truth.of(known))
    np.testing.assert_allclose(found.of(new), truth.of(new), rtol=2e-3)


def test_few_plans_leave_a_common_price_and_nothing_negative() -> None:
    work = chain()
    rows = rows_of(work, plans(5), steps=(1, 8, 16))
    ratios = np.random.default_rng(0).uniform(0.2, 1.0, 5)
    found = fit(work, rows, ratios)
    assert found.fixed >= 0
    assert (found.terms >= 0).all()
    assert np.isfinite(found.terms).all()


def test_more_units_never_cost_less() -> None:
    work = chain()
    generator = np.random.default_rng(5)
    rows = rows_of(work, plans(30), steps=(1, 8))
    found = fit(work, rows, generator.uniform(0.2, 1.0, 30))
    keep = plans(1, seed=9)[0]
    more = keep | (generator.random(keep.size) < 0.3)
    small, large = found.of(rows_of(work, [keep, more], steps=(1, 8)))
    assert small <= large


def test_what_runs_while_anything_of_a_branch_is_left_has_a_price_of_its_own() -> None:
    ends = (1, 3)
    units = [np.arange(UNITS) + UNITS * group for group in ends]
    work = replace(chain(), branches=tuple(CostTerm(f"branch{n}", 1.0, (axis,)) for n, axis in enumerate(units)))
    macs, written, branches = work.shares()
    assert work.steps(8) == (1, 4, 8, WHOLE)
    steps, dear = (1, WHOLE), branches * np.where(np.arange(branches.size) == branches.size - 1, 1.5, 0.5)
    truth = Prices(0.1, np.stack([0.4 * macs + 0.1 * written, 0.4 * dear]))
    generator = np.random.default_rng(2)

    def rows(seed: int) -> np.ndarray:
        keeps = plans(40, seed=seed)
        for keep in keeps:
            for axis in units:
                keep[axis] &= bool(generator.integers(2))
        return rows_of(work, keeps, steps=steps)

    known, new = rows(0), rows(1)
    assert set(np.unique(known[:, 1])) == {0.0, 1.0}  # a unit that is left runs as much as all of them
    found = fit(work, known, truth.of(known))
    np.testing.assert_allclose(found.of(new), truth.of(new), rtol=0.02)
    np.testing.assert_allclose(found.terms[1, -2:], [0.1, 0.3], atol=0.03)
