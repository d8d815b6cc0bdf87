"""Attention, in one operator or in many: heads are units wherever that is exact, and wrong rules are found."""

import onnx
import pytest

from tests.rewrite import laws
from tests.rewrite.plans import KINDS
from tests.rules.faults import Fault, caught, not_rewritten, plant, shifted, untied
from tests.rules.heads import HEADS
from tests.samples_text import load_sample, parse_sample

#: Operators of opset 23, which only onnx's reference evaluator runs, and how many heads go in their sample.
NEW = {"Attention": 2, "RotaryEmbedding": 3}
EXACT = (laws.law_masked_equals_shrunk, laws.law_masked_differs_only_in_zeros)


def heads_of(original: onnx.ModelProto) -> list[int]:
    """Count the units of the group that W1 belongs to, if it may shrink."""
    return [group.count for group in laws.units_of(original)[1].groups if "W1" in group.tensors]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", NEW)
def test_new_operators_shrink_exactly(operator: str, kind: str) -> None:
    original = load_sample(operator)
    assert heads_of(original) == [NEW[operator]]
    laws.hold(original, *EXACT, kinds=[kind], seeds=range(2))


@pytest.mark.parametrize("operator", NEW)
@pytest.mark.parametrize("fault", [shifted, untied, not_rewritten], ids=lambda fault: fault.__name__)
def test_a_fault_in_new_operators_is_found(operator: str, fault: Fault) -> None:
    original = load_sample(operator)
    expected = laws.units_of(original)[1].count
    plant(fault, operator)
    assert caught(original, expected=expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADS)
def test_heads_are_units_as_exporters_write_them(name: str, kind: str) -> None:
    heads, text = HEADS[name]
    original = parse_sample(text)
    assert heads_of(original) == [heads]
    laws.hold(original, *EXACT, kinds=[kind], seeds=range(2))
