"""Rules that are wrong on purpose: the property has to catch each of them, by numbers, and name the operator."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.operators import table
from onnxadmm.rewrite import mask as mask_module
from onnxadmm.rewrite import shrink as shrink_module
from onnxadmm.rules.visit import Visit
from onnxadmm.units.units import Units
from tests.graphs import features, random_graph
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep

#: Seeds to look through; without a planted bug ``test_equivalence`` finds nothing wrong with them.
SEARCHED = 200


@cache
def network(seed: int) -> onnx.ModelProto:
    return random_graph(seed)


def flatten_with_tile(visit: Visit) -> None:
    """Flatten repeats each channel's label; tiling the run of labels has the same length."""
    data = visit.operand(0)
    if visit.axis_attribute("axis", 1, data.rank) != 1 or data.axes[1] is None:
        raise AssertionError("not planted here")
    visit.set_result([data.axes[0], np.tile(data.axes[1], int(np.prod(data.shape[2:])))])


def concat_without_offset(visit: Visit) -> None:
    """Every operand of Concat must get its own run of labels."""
    parts = visit.operands()
    axis = visit.axis_attribute("axis", 0, parts[0].rank)
    first = parts[0].axes[axis]
    if first is None:
        raise AssertionError("not planted here")
    axes = list(parts[0].axes)
    axes[axis] = np.resize(first, visit.result_shape()[axis])
    visit.set_result(axes)


def concat_in_reverse(visit: Visit) -> None:
    """The labels of the last operand come first: as many survivors, of the wrong operand."""
    parts = visit.operands()
    axis = visit.axis_attribute("axis", 0, parts[0].rank)
    runs = [part.axes[axis] for part in parts]
    if parts[0].constant or any(run is None for run in runs):
        raise AssertionError("not planted here")
    axes = list(parts[0].axes)
    axes[axis] = np.concatenate([run for run in reversed(runs) if run is not None])
    visit.set_result(axes)


def transpose_without_permuting_labels(visit: Visit) -> None:
    """The labels stay where they were; only where the sizes allow it."""
    data = visit.operand(0)
    if data.shape != visit.result_shape():
        raise AssertionError("not planted here")
    visit.set_result(data.axes)


def split_with_equal_labels(visit: Visit) -> None:
    """Both results of Split get the labels of the first part."""
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", 0, data.rank)
    labels = data.axes[axis]
    if labels is None:
        raise AssertionError("not planted here")
    for result in range(visit.result_count):
        axes = list(data.axes)
        axes[axis] = labels[: visit.result_shape(result)[axis]]
        visit.set_result(axes, index=result)


def pad_with_sides_swapped(visit: Visit) -> None:
    """Channels that Pad puts in front are taken for channels at the end."""
    data = visit.operand(0)
    pads = visit.require_integers(1, "pads")
    labels = data.axes[1]
    if visit.has_operand(3) or labels is None or not any((pads[1], pads[1 + data.rank])):
        raise AssertionError("not planted here")
    before, after = pads[1 + data.rank], pads[1]
    axes = list(data.axes)
    axes[1] = np.concatenate(
        [visit.new_locked_labels(before, "is padding"), labels, visit.new_locked_labels(after, "is padding")]
    )
    visit.set_result(axes)


def addition_that_forgets_its_second_operand(visit: Visit) -> None:
    """Without the tie one side of a residual shrinks alone."""
    data = visit.operand(0)
    visit.operand(1)
    visit.set_result(data.axes if data.shape == visit.result_shape() else visit.operand(1).axes)


def softmax_as_if_it_did_not_mix(visit: Visit) -> None:
    """Softmax over the channels is no function of each channel alone."""
    visit.set_result(visit.operand(0).axes)


Planted = tuple[str, Callable[[Visit], None]]
RULES: dict[str, Planted] = {
    "Flatten tiles": ("Flatten", flatten_with_tile),
    "Concat loses its offset": ("Concat", concat_without_offset),
    "Concat reverses its operands": ("Concat", concat_in_reverse),
    "Transpose keeps its labels in place": ("Transpose", transpose_without_permuting_labels),
    "Split repeats its first part": ("Split", split_with_equal_labels),
    "Pad swaps its sides": ("Pad", pad_with_sides_swapped),
    "Add forgets to tie": ("Add", addition_that_forgets_its_second_operand),
    "Softmax passes channels through": ("Softmax", softmax_as_if_it_did_not_mix),
}


def plant(monkeypatch: pytest.MonkeyPatch, operator: str, label: Callable[[Visit], None]) -> None:
    """Replace an operator's label function; where the wrong one does not apply the right one is asked."""
    right = table.find("", operator)
    honest = right.label
    assert honest is not None

    def wrong(visit: Visit) -> None:
        try:
            label(visit)
        except AssertionError:
            honest(visit)

    monkeypatch.setitem(table._TABLE, ("", operator), replace(right, label=wrong))


def complaints(wanted: Callable[[onnx.ModelProto], bool], *, enough: int) -> list[str]:
    """What the comparison says of networks with the wanted feature, until it complained ``enough`` times."""
    found: list[str] = []
    for seed in range(SEARCHED):
        original = network(seed)
        if not wanted(original):
            continue
        model, units = laws.units_of(original)
        try:
            case = laws.prune(original, model, units, random_keep(units, seed=seed, kind=KINDS[seed % len(KINDS)]))
            laws.law_masked_equals_shrunk(case)
        except (AssertionError, ValueError, IndexError) as error:
            found.append(str(error))
        if len(found) == enough:
            break
    return found


@pytest.mark.parametrize("bug", RULES)
def test_wrong_rule_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, label = RULES[bug]
    plant(monkeypatch, operator, label)
    found = complaints(lambda model: operator in features(model), enough=2)
    assert len(found) == 2


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["Flatten tiles", "Concat reverses its operands"])
def test_wrong_rule_of_equal_shapes_is_caught_by_numbers_and_located(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These two give networks that load and run and are merely wrong; the message leads to the operator."""
    operator, label = RULES[bug]
    plant(monkeypatch, operator, label)
    found = complaints(lambda model: operator in features(model), enough=12)
    assert sum(" dB" in message for message in found) >= 2
    assert sum(f"computed by {operator}" in message for message in found) >= 2


def test_mask_that_zeroes_the_wrong_positions_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mask_module.mask

    def inverted(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
        return right(model, units, np.roll(keep, 1))

    monkeypatch.setattr(laws, "mask", inverted)
    assert len(complaints(lambda _: True, enough=5)) == 5


def test_cut_that_takes_the_first_positions_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = shrink_module.cut

    def leading(array: NDArray[np.generic], positions: tuple[NDArray[np.int64] | None, ...]) -> NDArray[np.generic]:
        return right(
            array, tuple(None if p is None else np.sort(p, axis=-1) * 0 + np.arange(p.shape[-1]) for p in positions)
        )

    monkeypatch.setattr(shrink_module, "cut", leading)
    assert len(complaints(lambda _: True, enough=5)) == 5
