"""Steps that are taken elsewhere: the run is the same, whoever takes them; of several, the mean is."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.settings import Settings, paper_settings
from onnxadmm.admm.solver import solve
from onnxadmm.admm.steps import Steps
from tests.admm.tiny import TinyData, TinyTrainer, tiny_problem

NAMES = ("first.weight", "second.weight")
QUICK = Settings(epochs=6, iterations_per_epoch=4, learning_rate=1e-2)
PAPER = replace(paper_settings(epochs=8), gate_step=5e-3, learning_rate=1e-2, iterations_per_epoch=2)


class Elsewhere:
    """Another process, as far as can be seen: a trainer and gates of its own, that are told and tell.

    Args:
        rounds: into how many an iteration is cut.
    """

    def __init__(self, problem, settings, *, rounds=1, seed=0):
        self.trainer = TinyTrainer()
        self.steps = Steps(self.trainer, problem, settings)
        data = TinyData(seed=seed)
        self.stream = itertools.chain.from_iterable(data(epoch) for epoch in itertools.count())
        self.rounds = rounds

    def take(self, here, now, rates):
        for name, array in here.weights.items():
            self.trainer.weights[name][...] = array
        self.steps.aim({name: array.copy() for name, array in here.aims().items()})
        self.steps.place()
        loss = self.steps.take(self.stream, rates, gate_rho=now.gate_rho, connection_rho=now.connection_rho)
        moved = {name: np.array(array) for name, array in self.steps.neurons.moved().items()}
        return loss, {name: array.copy() for name, array in self.trainer.weights.items()}, moved

    def __call__(self, here, now):
        total = 0.0
        for rates in np.array_split(now.learning_rates, min(self.rounds, len(now.learning_rates))):
            loss, weights, moved = self.take(here, now, rates)
            for name, array in weights.items():
                here.weights[name][...] = array
            here.place(moved)
            total += loss
        return total


def run(settings, problem, together=None):
    trainer, data = TinyTrainer(), TinyData()
    solution = solve(trainer, problem, batches=data, steps_per_epoch=data.steps, settings=settings, together=together)
    return trainer, solution


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("settings", [QUICK, PAPER], ids=["admm", "paper"])
@pytest.mark.parametrize("connections", [(), NAMES])
def test_steps_taken_elsewhere_give_the_same_run_to_the_bit(settings, connections, rounds):
    problem = tiny_problem(budget=54.0, connections=connections, share=0.5 if connections else 1.0)
    here, expected = run(settings, problem)
    other, found = run(settings, problem, Elsewhere(problem, settings, rounds=rounds))
    assert [record.loss for record in found.history] == pytest.approx([record.loss for record in expected.history])
    assert [replace(record, loss=0.0) for record in found.history] == [
        replace(record, loss=0.0) for record in expected.history
    ]
    np.testing.assert_array_equal(found.keep, expected.keep)
    for name, array in here.weights.items():
        np.testing.assert_array_equal(other.weights[name], array)


@pytest.mark.parametrize("settings", [QUICK, PAPER], ids=["admm", "paper"])
def test_the_mean_of_what_two_have_moved_prunes_as_well(settings):
    problem = tiny_problem()
    two = [Elsewhere(problem, settings, seed=seed) for seed in (0, 1)]

    def together(here, now):
        losses, weights, moved = zip(*(one.take(here, now, now.learning_rates) for one in two), strict=True)
        for name, array in here.weights.items():
            array[...] = np.mean([each[name] for each in weights], axis=0)
        here.place({name: np.mean([each[name] for each in moved], axis=0) for name in moved[0]})
        return sum(losses) / 2

    trainer, solution = run(settings, problem, together)
    assert solution.keep.sum() == 4
    assert trainer.accuracy(TinyData().whole) > 0.9
