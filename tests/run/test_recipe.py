"""What a recipe makes of a run of some length."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import onnxadmm as oa
from onnxadmm.admm.neurons import ImportancePerCost
from onnxadmm.admm.schedule import Schedule
from onnxadmm.admm.settings import paper_settings
from onnxadmm.demo import DemoFiles
from tests.admm.test_selection import chain_problem
from tests.shared import needs_training

#: Steps of a run of the default length.
USUAL = 2200


def still_open(steps: int, *, at: float, recipe: oa.Recipe) -> float:
    """The gate of a unit that goes from the start, at a share of a run of so many steps."""
    problem = chain_problem([2], 0.0)
    neurons = ImportancePerCost(problem, recipe.settings(steps_per_epoch=steps))
    neurons._target[...] = 0.0
    schedule = Schedule(neurons._settings, steps=steps, iterations=min(40, steps), full=1.0, budget=0.5)
    for iteration in range(1, schedule.iterations + 1):
        now = schedule.at(iteration)
        if now.steps_after > at * steps:
            break
        for _ in now.learning_rates:
            neurons.step(np.zeros(2), rho=now.gate_rho)
    return float(neurons.gates[0])


@pytest.mark.parametrize("steps", [80, 300, 1000])
@pytest.mark.parametrize("at", [0.25, 0.4, 0.6])
def test_gates_close_by_the_same_share_of_a_run_however_short_it_is(steps: int, at: float) -> None:
    recipe = oa.Recipe(epochs=1)
    assert still_open(steps, at=at, recipe=recipe) == pytest.approx(still_open(USUAL, at=at, recipe=recipe), abs=0.04)


def test_long_runs_and_shares_of_runs_take_the_steps_that_follow() -> None:
    usual = oa.Recipe(epochs=4)
    assert usual.settings(steps_per_epoch=1000).gate_step == 1.0
    assert usual.settings(steps_per_epoch=110).gate_step == 5.0
    assert usual.settings(steps_per_epoch=110, share=0.5).gate_step == 10.0


def test_the_papers_method_stays_what_it_is() -> None:
    found = oa.Recipe(method="paper", epochs=1).settings(steps_per_epoch=10)
    assert found.gate_step == paper_settings().gate_step


def test_short_runs_are_refitted_and_others_where_that_is_asked_for() -> None:
    usual = oa.Recipe(method="admm")
    assert replace(usual, epochs=2).refits(steps_per_epoch=1000)
    assert not replace(usual, epochs=3).refits(steps_per_epoch=1000)
    assert not usual.refits(steps_per_epoch=10)
    assert replace(usual, refit=True).refits(steps_per_epoch=1000)
    assert not replace(usual, epochs=1, refit=False).refits(steps_per_epoch=10)


@pytest.mark.parametrize(
    ("said", "connections", "method"),
    [
        ({}, False, "calibrated"),
        ({"retrain_epochs": 3, "workers": 2, "retrain_learning_rate": 1e-3, "norm": "keep"}, False, "calibrated"),
        ({}, True, "admm"),
        ({"mode": "joint"}, False, "admm"),
        ({"epochs": 1}, False, "admm"),
        ({"learning_rate": 1e-3}, False, "admm"),
        ({"refit": False}, False, "admm"),
        ({"freeze_untrainable": True}, False, "admm"),
        ({"retrain_epochs": 0}, False, "admm"),
        ({"cluster": "local:2"}, False, "calibrated"),  # which may be added and left out when a run goes on
        ({"method": "calibrated"}, True, "calibrated"),
        ({"method": "paper"}, False, "paper"),
    ],
)
def test_the_method_is_what_is_asked_for_or_what_chooses_it_best(
    said: dict[str, Any], connections: bool, method: str
) -> None:
    recipe = oa.Recipe(**said)
    assert recipe.settled(connections=connections) == replace(recipe, method=method)


def test_other_methods_are_refitted_where_that_is_asked_for() -> None:
    assert not oa.Recipe(method="paper", epochs=1).refits(steps_per_epoch=10)
    assert not oa.Recipe(method="calibrated").refits(steps_per_epoch=10)
    asked = oa.Recipe(method="paper", epochs=1, refit=True)
    assert asked.may_refit
    assert asked.refits(steps_per_epoch=10)


@pytest.mark.slow
@needs_training
def test_a_short_run_under_a_small_budget_leaves_a_network_that_knows_something(digits: DemoFiles) -> None:
    with np.load(digits.training) as archive:
        images = (archive["images"][:, None] / np.float32(16)).astype(np.float32)
        labels = archive["labels"].astype(np.int64)
    found = oa.compress(
        digits.model,
        data=(images, labels),
        budget={"params": 0.05},
        recipe=oa.Recipe(epochs=4, retrain_epochs=0, batch_size=64),
        limits=oa.Limits(round_to=1),
        bench=False,
    )
    assert found.report.after.heldout is not None
    assert found.report.after.heldout.value > 0.5  # 0.2 to 0.3 where gates are still open when the last choice falls
