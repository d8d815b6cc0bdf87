"""Connections: who competes, shares, penalties, and units that take entries along."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.connections import Connections, largest_of_all, largest_of_each, remaining_entries
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
    layered = largest_of_each(trainer.weights, remaining, dict.fromkeys(remaining, 0.5))
    assert {name: int(mask.sum()) for name, mask in layered.items()} == {"first.weight": 12, "second.weight": 6}
    shared = largest_of_all(trainer.weights, remaining, 0.5)
    assert sum(int(mask.sum()) for mask in shared.values()) == 18
    for masks in (layered, shared):
        assert not any((masks[name] & ~remaining[name]).any() for name in NAMES)


def test_one_threshold_never_empties_a_layer():
    weights = {"a": np.full(50, 1.0, dtype=np.float32), "b": np.full(50, 1e-6, dtype=np.float32)}
    remaining = {name: np.ones(50, dtype=bool) for name in weights}
    masks = largest_of_all(weights, remaining, 0.1)
    assert [int(masks[name].sum()) for name in weights] == [9, 1]  # the one is no more than the share leaves
    assert [int(mask.sum()) for mask in largest_of_all(weights, remaining, 0.001).values()] == [1, 1]


def test_the_penalty_gradient_is_that_of_the_squared_penalty():
    trainer = TinyTrainer()
    problem = tiny_problem(connections=NAMES, share=0.3)
    connections = Connections(problem, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    connections.iterate(np.ones(12, dtype=bool), power=1.0)
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
    connections.iterate(np.arange(12) < 6, power=1.0)
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


# -- a share for each weight -----------------------------------------------------------------------------------

SHARES = {"first.weight": 0.45, "second.weight": 0.25}


def nearest_by_trying_all(array, remaining, count):
    """The nearest array with at most ``count`` of the remaining entries: every choice of them is tried."""
    places = np.flatnonzero(remaining)
    best, least = None, np.inf
    for chosen in itertools.combinations(places, count):
        z = array.astype(np.float64).reshape(-1).copy()
        z[np.setdiff1d(places, chosen)] = 0.0
        distance = np.square(array.astype(np.float64).reshape(-1) - z).sum()
        if distance < least:
            best, least = z.reshape(array.shape), distance
    return best


def small(**changes):
    """Two inputs, three units, two classes: few enough entries to try every choice of them."""
    trainer = TinyTrainer(inputs=2, hidden=3, classes=2, seed=5)
    problem = tiny_problem(hidden=3, connections=NAMES, share=1.0)
    return trainer, replace(problem, connection_shares=SHARES, **changes)


@pytest.mark.parametrize("keep", [(True, True, True), (True, False, True), (False, True, False)])
def test_every_weight_is_projected_to_its_own_share_of_the_entries_that_remain(keep):
    trainer, problem = small()
    kept = np.array(keep)
    connections = Connections(problem, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    duals = {name: np.zeros(array.shape) for name, array in trainer.weights.items()}
    for _ in range(3):  # with duals of the steps before
        connections.iterate(kept, power=1.0)
        for name, axis in (("first.weight", 0), ("second.weight", 1)):
            array = trainer.weights[name]
            remaining = np.broadcast_to(np.expand_dims(kept, 1 - axis), array.shape)
            count = max(1, int(SHARES[name] * remaining.sum()))
            z = nearest_by_trying_all(array + duals[name], remaining, count)
            duals[name] = duals[name] + array - z
            np.testing.assert_allclose(connections.aims()[name], z - duals[name], atol=1e-6)
            trainer.weights[name][...] *= 1.1
    zeros = connections.zeros(kept)
    counts = {name: int((~mask).sum()) for name, mask in zeros.items()}
    units = int(kept.sum())
    assert counts == {"first.weight": max(1, int(0.45 * 2 * units)), "second.weight": max(1, int(0.25 * 2 * units))}


def test_a_weight_without_a_share_of_its_own_keeps_that_of_all_or_every_entry():
    trainer, problem = small()
    for share, others in ((0.5, 3), (1.0, None)):
        given = replace(problem, connection_share=share, connection_shares={"second.weight": 0.25})
        connections = Connections(given, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
        zeros = connections.zeros(np.ones(3, dtype=bool))
        assert {name: int((~mask).sum()) for name, mask in zeros.items()} == {
            "second.weight": 1,
            **({} if others is None else {"first.weight": others}),
        }
    given = replace(problem, connection_share=0.5, connection_shares=dict.fromkeys(NAMES, 1.0))
    assert not Connections(given, weights=trainer.weights, gradients=trainer.gradients, per_layer=True).active


def test_shares_fall_together_while_the_run_goes_on():
    trainer, problem = small()
    given = replace(problem, connection_shares={"first.weight": 0.25, "second.weight": 1.0})
    connections = Connections(given, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
    for power, count in ((0.0, 6), (0.5, 3), (1.0, 1)):  # 0.25 ^ 0.5 of 6
        other = Connections(given, weights=trainer.weights, gradients=trainer.gradients, per_layer=True)
        other.iterate(np.ones(3, dtype=bool), power=power)
        kept = np.isclose(other.aims()["first.weight"], trainer.weights["first.weight"])
        assert int(kept.sum()) == count
    assert list(connections.aims()) == ["first.weight"]
