"""Fits in the order of the graph: what is redundant is made up for exactly, and what is not is lost less."""

from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.units import Units, find_units
from tests.calibrate.networks import batches, convolutional

EFFORT = replace(EFFORTS["normal"], ridges=(1e-6,))


def _outputs(model: Model, seed: int = 9) -> np.ndarray:
    feeds = batches(model, seed=1) + batches(model, count=1, seed=seed)
    with open_session(model, threads=1) as session:
        return np.concatenate([session.run(feed)["y"] for feed in feeds])


def _group(units: Units, tensor: str) -> range:
    (group,) = (group for group in units.groups if tensor in group.tensors)
    return range(group.start, group.start + group.count)


def _with_twins(model: Model) -> Model:
    """The last half of the filters of w1 are multiples of the first half: they can go without any loss."""
    values = constants_by_name(model)
    weight, bias = (np.array(constant(values[name])) for name in ("w1", "b1"))
    half = len(weight) // 2
    weight[half:], bias[half:] = 2 * weight[:half], 2 * bias[:half]
    return with_constants(model, {"w1": weight, "b1": bias})


def test_units_that_others_can_stand_for_go_without_loss() -> None:
    model = _with_twins(convolutional())
    units = find_units(model)
    keep = np.ones(units.count, bool)
    members = _group(units, "w1")
    keep[members[8:]] = False
    network = Network(model, units)
    fitted = refit(network, keep, batches(model), EFFORT)
    before, cut, after = (
        _outputs(each) for each in (model, network.masked({}, keep), network.masked(fitted.constants, keep))
    )
    assert np.abs(after - before).max() < 1e-2 * np.abs(before).max()
    assert np.abs(cut - before).max() > 0.1 * np.abs(before).max()


def test_a_network_that_was_cut_anywhere_loses_less() -> None:
    model = convolutional(seed=3)
    units = find_units(model)
    generator = np.random.default_rng(0)
    keep = np.ones(units.count, bool)
    for group in units.groups:
        keep[group.start + generator.permutation(group.count)[: group.count // 3]] = False
    network = Network(model, units)
    fitted = refit(network, keep, batches(model), EFFORT)
    before = _outputs(model)
    lost, left = (
        float(np.square(_outputs(network.masked(constants, keep)) - before).mean())
        for constants in ({}, fitted.constants)
    )
    assert left < 0.3 * lost


def test_what_was_fitted_is_cut_as_it_is_masked() -> None:
    model = convolutional(seed=4)
    units = find_units(model)
    keep = np.ones(units.count, bool)
    for group in units.groups:
        keep[group.start : group.start + group.count // 4] = False
    network = Network(model, units)
    fitted = refit(network, keep, batches(model), EFFORT)
    small = shrink(with_constants(model, fitted.constants), units, keep)
    np.testing.assert_allclose(_outputs(small), _outputs(network.masked(fitted.constants, keep)), rtol=1e-3, atol=1e-4)


def test_nothing_that_goes_changes_nothing() -> None:
    model = convolutional()
    units = find_units(model)
    assert not refit(Network(model, units), np.ones(units.count, bool), batches(model), EFFORT).constants


def test_layers_in_front_of_the_cut_stay_as_they_are() -> None:
    model = convolutional()
    units = find_units(model)
    keep = np.ones(units.count, bool)
    keep[_group(units, "w1")[:4]] = False
    fitted = refit(Network(model, units), keep, batches(model), EFFORT)
    assert set(fitted.constants) == {"w2", "b2", "w3", "b3"}
    assert fitted.sizes["d"] == (64 * 64, 12 * 9)


@pytest.mark.parametrize("room", [10**3, 10**9])
def test_memory_changes_how_it_runs_and_not_what_comes_out(room: int) -> None:
    model = convolutional()
    units = find_units(model)
    keep = np.ones(units.count, bool)
    keep[_group(units, "w1")[:4]] = False
    found, usual = (
        refit(Network(model, units), keep, batches(model), replace(EFFORT, memory=memory)).constants
        for memory in (room, EFFORT.memory)
    )
    for name, array in usual.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)
