"""The whole run on a tiny network: it prunes, it adapts, it is deterministic, it refuses, it recovers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.settings import Settings, paper_settings
from onnxadmm.admm.solver import solve
from onnxadmm.errors import BudgetError, DataError, DivergedError, OptionError
from tests.admm.tiny import TinyData, TinyTrainer, tiny_problem

NAMES = ("first.weight", "second.weight")
QUICK = Settings(epochs=12, iterations_per_epoch=4, learning_rate=1e-2)
PAPER = replace(paper_settings(epochs=30), gate_step=5e-3, learning_rate=1e-2, iterations_per_epoch=2)


def run(*, settings=QUICK, problem=None, on_iteration=None, trainer=None):
    trainer = TinyTrainer() if trainer is None else trainer
    data = TinyData()
    solution = solve(
        trainer,
        tiny_problem() if problem is None else problem,
        batches=data,
        steps_per_epoch=data.steps,
        settings=settings,
        on_iteration=on_iteration,
    )
    return trainer, solution


def masked_accuracy(keep):
    """Accuracy of the untrained network with the units simply cut: what the run has to beat."""
    trainer = TinyTrainer()
    trainer.weights["second.weight"][:, ~keep] = 0.0
    return trainer.accuracy(TinyData().whole)


@pytest.mark.parametrize("settings", [QUICK, PAPER], ids=["admm", "paper"])
@pytest.mark.parametrize("mode", ["holistic", "joint"])
def test_the_run_meets_the_budget_and_leaves_a_network_that_works(settings, mode):
    trainer, solution = run(settings=replace(settings, mode=mode))
    assert solution.keep.sum() == 4
    assert not trainer.weights["second.weight"][:, ~solution.keep].any()
    assert (trainer.weights["second.weight"][:, solution.keep] != 0).all()
    assert trainer.accuracy(TinyData().whole) > max(0.9, masked_accuracy(solution.keep))


@pytest.mark.parametrize("mode", ["holistic", "joint"])
@pytest.mark.parametrize("settings", [QUICK, PAPER], ids=["admm", "paper"])
def test_neurons_and_connections_are_pruned_together(settings, mode):
    problem = tiny_problem(budget=54.0, connections=NAMES, share=0.5)
    trainer, solution = run(settings=replace(settings, mode=mode), problem=problem)
    assert solution.keep.sum() == 6
    left = {
        "first.weight": trainer.weights["first.weight"][solution.keep],
        "second.weight": trainer.weights["second.weight"][:, solution.keep],
    }
    counts = {name: int(np.count_nonzero(array)) for name, array in left.items()}
    if mode == "joint":
        assert counts == {"first.weight": 18, "second.weight": 9}
    else:
        assert sum(counts.values()) == 27
    for name in NAMES:
        assert not trainer.weights[name][solution.zeros[name]].any()
    assert trainer.accuracy(TinyData().whole) > 0.9


class WithDeadUnits(TinyTrainer):
    """Hidden units that stay at tanh(0) = 0, so that their gates have no effect on the loss."""

    dead = (1, 5, 7)

    def backward(self, batch):
        loss = super().backward(batch)
        self.gradients["first.weight"][list(self.dead)] = 0.0
        self.gradients["first.bias"][list(self.dead)] = 0.0
        return loss


def test_useless_units_go_first():
    trainer = WithDeadUnits()
    trainer.weights["first.weight"][list(trainer.dead)] = 0.0
    _, solution = run(problem=tiny_problem(budget=81.0), trainer=trainer)
    assert solution.keep.sum() == 9
    assert not solution.keep[list(trainer.dead)].any()


def test_two_runs_are_the_same_to_the_bit():
    first, one = run(problem=tiny_problem(connections=NAMES, share=0.5))
    second, two = run(problem=tiny_problem(connections=NAMES, share=0.5))
    assert one.history == two.history
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name])


def test_the_history_follows_the_schedules():
    _, solution = run(problem=tiny_problem(connections=NAMES, share=0.5))
    history = solution.history
    assert [record.iteration for record in history] == list(range(1, 49))
    assert history[-1].epoch == 12.0
    assert all(record.cost <= record.budget for record in history)
    assert history[-1].budget == 36.0
    assert all(a.budget >= b.budget for a, b in itertools.pairwise(history))
    assert all(a.neuron_rho < b.neuron_rho for a, b in itertools.pairwise(history))
    assert history[-1].neuron_primal < 0.05 < max(record.neuron_primal for record in history)
    assert history[-1].connection_primal < max(record.connection_primal for record in history)
    assert history[-1].loss < 0.5


def test_during_the_call_back_the_trainer_holds_the_network_of_the_moment():
    trainer, seen = TinyTrainer(), []

    def look(record):
        seen.append((record.kept, int((trainer.weights["second.weight"] != 0).any(axis=0).sum())))

    run(trainer=trainer, on_iteration=look)
    assert len(seen) == 48
    assert all(kept == alive for kept, alive in seen)
    assert seen[0][0] > 4


def test_looking_does_not_change_the_run():
    watched, one = run(on_iteration=lambda record: None)
    alone, two = run()
    assert one.history == two.history
    for name, array in watched.weights.items():
        np.testing.assert_array_equal(array, alone.weights[name])


def test_an_unreachable_budget_is_refused_before_training():
    trainer = TinyTrainer()
    before = {name: array.copy() for name, array in trainer.weights.items()}
    with pytest.raises(BudgetError, match="at least 9"):
        run(problem=tiny_problem(budget=8.0), trainer=trainer)
    for name, array in before.items():
        np.testing.assert_array_equal(array, trainer.weights[name])


def test_joint_targets_that_cost_more_than_the_budget_are_refused_before_training():
    trainer = TinyTrainer()
    with pytest.raises(BudgetError, match="at least 45"):
        run(problem=tiny_problem(keep_counts=(5,)), settings=replace(QUICK, mode="joint"), trainer=trainer)
    assert trainer.updates == 0


class Failing(TinyTrainer):
    """Turns bad at one step: returns ``loss`` from then on, and spoils the weights."""

    def __init__(self, *, at: int, loss: float) -> None:
        super().__init__()
        self.calls = 0
        self._at = at
        self._bad = loss

    def backward(self, batch):
        self.calls += 1
        loss = super().backward(batch)
        return self._bad if self.calls > self._at else loss

    def update(self, learning_rate):
        super().update(learning_rate)
        if self.calls > self._at:
            for array in self.weights.values():
                array[...] = 1e9


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e6])
def test_divergence_names_the_iteration_and_restores_the_last_good_weights(loss):
    trainer = Failing(at=22, loss=loss)  # the sixth iteration begins at step 21
    seen = []
    with pytest.raises(DivergedError, match="iteration 6"):
        run(trainer=trainer, on_iteration=lambda record: seen.append(trainer.accuracy(TinyData().whole)))
    assert len(seen) == 5
    assert all(np.isfinite(array).all() and np.abs(array).max() < 100 for array in trainer.weights.values())
    assert trainer.accuracy(TinyData().whole) > 0.5


def test_a_loss_that_rises_from_almost_nothing_is_not_divergence():
    class Offset(TinyTrainer):
        def backward(self, batch):
            return super().backward(batch) * 1e-9 if self.updates < 40 else super().backward(batch)

    run(trainer=Offset())


def test_too_few_batches_are_refused():
    data = TinyData()
    with pytest.raises(DataError, match="in epoch 0"):
        solve(TinyTrainer(), tiny_problem(), batches=data, steps_per_epoch=data.steps + 1, settings=QUICK)
    with pytest.raises(DataError, match="at least one batch"):
        solve(TinyTrainer(), tiny_problem(), batches=data, steps_per_epoch=0, settings=QUICK)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"gate_penalty": (1.0, 0.1)},
        {"budget_ramp": 1.5},
        {"mode": "both"},
        {"method": "magic"},
    ],
)
def test_settings_refuse_nonsense(change):
    with pytest.raises(OptionError):
        replace(Settings(), **change)


def test_a_run_goes_on_from_a_smaller_network():
    """Units that are gone stay gone, and the budget falls from what the others cost."""
    trainer, first = run(problem=tiny_problem(budget=72.0))
    assert first.keep.sum() == 8
    smaller = replace(tiny_problem(budget=36.0), start=first.keep)
    records = []
    trainer, second = run(problem=smaller, trainer=trainer, on_iteration=records.append)
    assert second.keep.sum() == 4
    assert not (second.keep & ~first.keep).any()
    assert records[0].budget < 72.0
    assert max(record.kept for record in records) <= 8
    assert trainer.accuracy(TinyData().whole) > 0.9
