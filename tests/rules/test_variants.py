"""Operators in cases beyond their samples: exact where they pass units on, locked by name where they do not."""

from collections.abc import Callable

import onnx
import pytest

from onnxadmm.graph.model import to_proto
from onnxadmm.operators.table import find
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.units import find_units
from tests.graphs import feeds
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.rules.locking import LOCKING
from tests.rules.variants import PASSING


def effect(operator: str) -> str:
    return find("", operator).effect


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PASSING)
def test_units_pass_exactly(name: str, kind: str) -> None:
    original = PASSING[name].model()
    held: list[Callable[[laws.Case], object]] = [
        laws.law_shrunk_is_valid,
        laws.law_masked_equals_shrunk,
        laws.law_masked_differs_only_in_zeros,
        laws.law_cost_is_counted_on_the_shrunk_graph,
    ]
    if "int64[1,4,2,3] indices" not in PASSING[name].weights:  # other numbers there would be no positions
        held.append(laws.law_removed_units_cannot_be_seen)
    units = laws.hold(original, *held, kinds=[kind], seeds=range(3))[0].units
    assert any("W1" in group.tensors or "table" in group.tensors for group in units.groups), units.locked


@pytest.mark.parametrize("name", LOCKING)
def test_an_operator_that_works_along_the_channels_locks_them_by_name(name: str) -> None:
    _, units = laws.units_of(LOCKING[name].model())
    reasons = {group.name: group.reason for group in units.locked}
    assert not any("W1" in group.tensors for group in units.groups)
    assert LOCKING[name].operator in reasons["W1"]


@pytest.mark.parametrize("name", [name for name, variant in LOCKING.items() if effect(variant.operator) == "inexact"])
def test_inexact_pruning_passes_and_is_named(name: str) -> None:
    original = LOCKING[name].model()
    model, _ = laws.units_of(original)
    units = find_units(model, inexact=True)
    assert any("W1" in group.tensors for group in units.groups), units.locked
    assert any(where.startswith(LOCKING[name].operator) for where in units.inexact)
    small = to_proto(shrink(model, units, random_keep(units, seed=1)))
    onnx.checker.check_model(small, full_check=True)
    laws.run(small, feeds(original))


def test_group_normalisation_loses_whole_groups_unless_inexact() -> None:
    original = PASSING["group normalisation"].model()
    model, units = laws.units_of(original)
    assert [group.count for group in units.groups if "W1" in group.tensors] == [3]
    inexact = find_units(model, inexact=True)
    assert [(group.count, group.block_count) for group in inexact.groups if "W1" in group.tensors] == [(6, 3)]
    assert inexact.inexact
    assert not units.inexact


def test_a_node_called_like_the_result_of_another_is_another() -> None:
    original = PASSING["one weight for two convolutions in groups"].model()
    first, second = [node for node in original.graph.node if "W3" in node.input]
    second.name = first.output[0]
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(3))
