"""The choice of units by measured losses."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.state import State
from onnxadmm.calibrate.choose import Choice, Tried, choose, nearest
from onnxadmm.calibrate.distance import Constants, Goal, Outlook
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.errors import BudgetError
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.plan.rank import score
from onnxadmm.units.units import find_units
from tests.calibrate.networks import batches, convolutional, network, squares

EFFORT = EFFORTS["normal"]


class Asked:
    """A problem, with what calibration needs of it."""

    def __init__(self, model: Model, *, params: float = 0.6) -> None:
        self.model = model
        self.units = find_units(model)
        self.network = Network(model, self.units)
        self.problem = state_problem(model, self.units, Budget(params=params), Limits())
        self.batches = batches(model)
        self.scores = score(model, self.units, by="magnitude", seed=0)
        self.measured = 0
        self._outlook = Outlook(Goal(model, self.batches, squares), threads=1, room=10**9)

    def distance(self, changes: Sequence[Constants]) -> list[float]:
        self.measured += len(changes)
        return self._outlook(changes)

    def kept(self, **named: object) -> np.ndarray:
        given = (self.network, self.problem, self.batches, self.scores, self.distance, EFFORT)
        (choice,) = choose(*given, **named)  # type: ignore[arg-type]  # on_group and resume, as the tests give them
        return choice(self.problem.budget)

    def choices(self, information: np.ndarray, *weights: float) -> list[Choice]:
        given = (self.network, self.problem, self.batches, self.scores, self.distance)
        return choose(*given, replace(EFFORT, weights=weights), information=information)

    def nearest(self, choices: Sequence[Choice]) -> Tried:
        named = {"network": self.network, "batches": self.batches, "distance": self.distance, "effort": EFFORT}
        return nearest(choices, self.problem.budget, **named)  # type: ignore[arg-type]  # of one kind each


def test_the_budget_is_met_and_used_up() -> None:
    asked = Asked(convolutional())
    cost = asked.problem.cost.total(asked.kept())
    # One step of the dearest group is a tenth of so small a network.
    assert 0.9 * asked.problem.budget < cost <= asked.problem.budget


def test_units_that_others_can_stand_for_go_first() -> None:
    model = convolutional()
    values = constants_by_name(model)
    weight, bias = (np.array(constant(values[name])) for name in ("w1", "b1"))
    weight[8:], bias[8:] = 2 * weight[:8], 2 * bias[:8]
    asked = Asked(with_constants(model, {"w1": weight, "b1": bias}), params=0.72)
    (group,) = (group for group in asked.units.groups if "w1" in group.tensors)
    gone = set(np.flatnonzero(~asked.kept()[group.start : group.start + group.count]))
    assert len(gone) >= 5
    assert not any({unit, unit + 8} <= gone for unit in range(8))


def test_going_on_measures_only_what_is_left_and_chooses_alike() -> None:
    whole = Asked(convolutional())
    states: list[State] = []
    keep = whole.kept(on_group=states.append)
    assert len(states) == len(whole.problem.groups)
    for state in states:
        rest = Asked(convolutional())
        np.testing.assert_array_equal(rest.kept(resume=state), keep)
        assert rest.measured < whole.measured
    assert rest.measured == 0


def test_a_small_room_for_moments_chooses_alike() -> None:
    asked = Asked(convolutional())
    given = (asked.network, asked.problem, asked.batches, asked.scores, asked.distance)
    (few,), (many,) = (choose(*given, replace(EFFORT, memory=memory)) for memory in (1000, 10**9))
    few, many = few(asked.problem.budget), many(asked.problem.budget)
    np.testing.assert_array_equal(few, many)


def test_a_group_that_may_not_shrink_costs_nothing_and_stays() -> None:
    asked = Asked(convolutional(), params=0.9)
    groups = tuple(replace(group, keep_at_most_removed=0) for group in asked.problem.groups[1:])
    asked.problem = replace(asked.problem, groups=(asked.problem.groups[0], *groups))
    keep = asked.kept()
    size = groups[0].count
    assert asked.measured == len({1, *(max(1, round(level * size)) for level in EFFORT.levels)})
    assert all(keep[group.start : group.start + group.count].all() for group in groups)


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least"):
        Asked(convolutional(), params=0.001).kept()


def test_outputs_that_are_not_finite_count_as_far() -> None:
    asked = Asked(convolutional())
    asked.distance = lambda changes: [float("nan")] * len(changes)  # type: ignore[method-assign]
    assert asked.problem.cost.total(asked.kept()) <= asked.problem.budget


def test_what_a_strong_budget_leaves_of_a_wide_group_was_measured_near_by() -> None:
    model = network(
        "g (float[N,20] x) => (float[N,4] y) { a = Gemm (x, w0, b0) r = Relu (a) y = Gemm (r, w1, b1) }",
        {"w0": [20, 400], "b0": [400], "w1": [400, 4], "b1": [4]},
    )
    states: list[State] = []
    asked = Asked(model, params=0.03)
    kept = asked.kept(on_group=states.append).sum()
    counts = states[-1]["0/counts"]
    above = int(np.searchsorted(counts, kept))
    assert 4 <= kept < 400 / 8  # below what milder budgets leave
    assert counts[above] <= 2 * counts[above - 1] + 2


def test_the_larger_a_network_the_fewer_levels_it_is_measured_at() -> None:
    small = EFFORT.for_network(macs=1e6, groups=10)
    some = EFFORT.for_network(macs=4e12 / (16 * 10 * 7), groups=10)
    large = EFFORT.for_network(macs=1e12, groups=100)
    assert small.levels == EFFORT.levels
    assert some.levels == (0.875, 0.75, 0.5, 0.25, 0.125)
    assert large.levels == (0.75, 0.5, 0.25)
    best = EFFORTS["best"].for_network(macs=1e12, groups=100)
    assert best.levels == (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)


def test_groups_that_matter_more_give_less() -> None:
    asked = Asked(convolutional())
    cheap, dear = asked.units.groups[:2]
    counts = []
    for spared in (cheap, dear):
        information = np.ones(asked.units.count)
        information[spared.start : spared.start + spared.count] = 1e3
        (choice,) = asked.choices(information, 0.75)
        keep = choice(asked.problem.budget)
        counts.append([int(keep[group.start : group.start + group.count].sum()) for group in (cheap, dear)])
    assert counts[0][0] > counts[1][0]
    assert counts[0][1] < counts[1][1]


def test_units_without_information_go_before_all_others() -> None:
    asked = Asked(convolutional(), params=0.85)
    information = np.ones(asked.units.count)
    group = max(asked.units.groups, key=lambda each: each.count)
    own = np.arange(group.start, group.start + group.count)
    information[own] = 0.0
    (choice,) = asked.choices(information, 0.5)
    keep = choice(asked.problem.budget)
    assert not keep[own].all()
    assert np.delete(keep, own).all()


def test_no_weight_of_the_information_is_as_none_of_it() -> None:
    asked = Asked(convolutional())
    information = np.random.default_rng(0).uniform(0, 1, asked.units.count)
    (choice,) = asked.choices(information, 0.0)
    np.testing.assert_array_equal(choice(asked.problem.budget), asked.kept())


def test_of_several_choices_the_one_nearest_to_the_original_is_taken() -> None:
    asked = Asked(convolutional())
    misled = np.ones(asked.units.count)
    misled[asked.units.groups[0].start :][: asked.units.groups[0].count] = 1e-9
    choices = asked.choices(misled, 0.9, 0.0)
    bad, good = (choice(asked.problem.budget) for choice in choices)
    assert (bad != good).any()
    tried = asked.nearest(choices)
    np.testing.assert_array_equal(tried.keep, good)
    assert tried.choice is choices[1]
    # What was fitted on the way is what fitting it again gives, and what is said of it is what it is.
    fitted = tried.fitted_for(good)
    assert fitted is not None
    assert tried.fitted_for(bad) is None
    again = refit(asked.network, good, asked.batches, EFFORT)
    for name, array in again.constants.items():
        np.testing.assert_array_equal(fitted.constants[name], array)
    model = asked.network.masked(fitted.constants, good)
    with open_session(model) as cut, open_session(asked.model) as whole:
        found, wanted = ([session.run(batch) for batch in asked.batches] for session in (cut, whole))
    assert tried.off == pytest.approx(squares(found, wanted), rel=1e-4)


def test_choices_that_are_alike_are_fitted_once_and_one_alone_never() -> None:
    asked = Asked(convolutional())
    choices = asked.choices(np.ones(asked.units.count), 0.0, 0.0)
    before = asked.measured
    asked.nearest(choices)
    assert asked.measured == before + 1
    assert asked.nearest(choices[:1]).keep is None
    assert asked.measured == before + 1
