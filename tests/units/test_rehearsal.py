"""What cannot be rewritten locks while groups are found, by name, and not when a training has ended."""

from dataclasses import replace

import pytest

from onnxadmm.graph import samples
from onnxadmm.operators import table
from onnxadmm.rules.edit import Edit
from tests.rewrite import laws
from tests.rules.variants import PASSING
from tests.samples_text import load_sample, parse_sample


def _refuse(edit: Edit) -> None:
    raise AssertionError("this case was forgotten")


def test_a_node_that_cannot_be_rewritten_locks_what_it_touches_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    original = PASSING["slice in the middle"].model()
    assert laws.units_of(original)[1].count
    rule = table.find("", "Slice")
    monkeypatch.setitem(table._TABLE, ("", "Slice"), replace(rule, rewrite=_refuse))
    _, units = laws.units_of(original)
    (locked,) = [group for group in units.locked if group.name == "W1"]
    assert locked.reason == "Slice (z) cannot be rewritten: this case was forgotten"


def test_what_can_be_rewritten_is_not_locked_by_the_rehearsal() -> None:
    assert laws.units_of(load_sample("Slice"))[1].count


@pytest.mark.parametrize("lengths", [((8, 12),), ((16, 24),)])
def test_a_size_that_nobody_knows_may_be_read_beside_channels_that_go(
    lengths: tuple[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions end at 16: where the second length is beyond that, nothing is known of the sizes behind them."""
    monkeypatch.setattr(samples, "_OTHERS", lengths)
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        text (int64[n,length] ids) => (float[n,length,10] y)
        <float[40,32] E, float[1,16,32] P, float[32,10] W, int64[1] one = {1}, int64[1] zero = {0},
        int64[1] two = {2}, int64[1] ten = {10}>
        { x = Gather (E, ids)
          s = Shape (ids)
          l = Slice (s, one, two)
          q = Slice (P, zero, l, one)
          z = Add (x, q)
          m = MatMul (z, W)
          t = Shape (z)
          f = Slice (t, zero, two)
          a = Concat <axis: int = 0> (f, ten)
          y = Reshape (m, a) }"""
    )
    assert [group.count for group in laws.units_of(original)[1].groups] == [32]
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(1))
