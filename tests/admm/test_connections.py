"""Connections: who competes, shares, penalties, and units that take entries along."""

import numpy as np
import pytest

from onnxadmm.admm.connections import Connections, largest_entries, remaining_entries
from onnxadmm.errors import OptionError
from tests.admm.tiny import TinyTrainer, tiny_problem

NAMES = ("first.weight", "second.weight")


def shapes(trainer):
    return {name: array.shape for name, array in trainer.weights.items()}


def test_entries_of_removed_units_do_not_remain():
    keep = np.arange(12) % 3 == 0
    masks = remaining_entries(tiny_problem(connections=NAMES), keep, shapes(TinyTrainer()))
    np.testing.assert_array_equal(masks["first.weight"], np.repeat(keep[:, None], 6, axis=1))
    np.testing.assert_array_equal(masks["second.weight"], np.repeat(keep[None, :], 3, axis=0))


def test_the_share_counts_remaining_entries_only():
    trainer = TinyTrainer()
    keep = np.arange(12) < 4
    remaining = remaining_entries(tiny_problem(connections=NAMES), keep, shapes(trainer))
    layered = largest_entries(trainer.weights, remaining, share=0.5, per_layer=True)
    assert {name: int(mask.sum()) for name, mask in layered.items()} == {"first.weight": 12, "second.weight": 6}
    shared = largest_entries(trainer.weights, remaining, share=0.5, per_layer=False)
    assert sum(int(mask.sum()) for mask in shared.values()) == 18
    for masks in (layered, shared):
        assert not any((masks[name] & ~remaining[name]).any() for name in NAMES)


def test_one_threshold_never_empties_a_layer():
    weights = {"a": np.full(50, 1.0, dtype=np.float32), "b": np.full(50, 1e-6, dtype=np.float32)}
    remaining = {name: np.ones(50, dtype=bool) for name in weights}
    masks = largest_entries(weights, remaining, share=0.1, per_layer=False)
    assert masks["b"].sum() == 1


def test_the_penalty_gradient_is_that_of_the_squared_penalty():
    trainer = TinyTrainer()
    problem = tiny_problem(connections=NAMES, share=0.3)
    connections = Connections(problem, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    connections.iterate(np.ones(12, dtype=bool), share=0.3)
    first = trainer.weights["first.weight"].astype(np.float64)
    cut = np.sort(np.abs(first), axis=None)[-int(0.3 * first.size)]
    z = np.where(np.abs(first) >= cut, first, 0.0)
    u = first - z
    trainer.gradients["first.weight"][...] = 0.0
    connections.add_penalty(0.5)
    np.testing.assert_allclose(trainer.gradients["first.weight"], 0.5 * (first - z + u), atol=1e-6)


def test_entries_a_removed_unit_takes_along_feel_no_penalty():
    trainer = TinyTrainer()
    problem = tiny_problem(connections=NAMES, share=0.3)
    connections = Connections(problem, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    connections.iterate(np.arange(12) < 6, share=0.3)
    for array in trainer.gradients.values():
        array[...] = 0.0
    connections.add_penalty(1.0)
    assert not trainer.gradients["first.weight"][6:].any()
    assert trainer.gradients["first.weight"][:6].any()


def test_a_share_of_one_leaves_connections_alone():
    trainer = TinyTrainer()
    problem = tiny_problem(connections=NAMES, share=1.0)
    connections = Connections(problem, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    connections.add_penalty(1.0)
    assert not any(array.any() for array in trainer.gradients.values())
    assert connections.zeros(np.ones(12, dtype=bool)) == {}


def test_connections_of_an_unknown_weight_are_refused():
    trainer = TinyTrainer()
    with pytest.raises(OptionError, match=r"third\.weight"):
        Connections(
            tiny_problem(connections=("third.weight",), share=0.5),
            weights=trainer.weights,
            gradients=trainer.gradients,
            per_layer=True,
        )
