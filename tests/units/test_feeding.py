"""Which group feeds which, on a chain and on a residual stream."""

from onnxadmm.graph.model import from_proto
from onnxadmm.units.cost import Cost, costs_by_name
from onnxadmm.units.feeding import fed_groups
from onnxadmm.units.units import find_units
from tests.samples_text import parse_sample

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[N,4] x) => (float[N,2] y)
<float[4,6] W1, float[6,6] W2, float[6,2] W3>
{
   a = MatMul (x, W1)
   r = Relu (a)
   b = MatMul (r, W2)
   s = Add (b, BODY)
   y = MatMul (s, W3)
}
"""


def test_a_group_feeds_the_one_that_its_readers_write_and_the_last_the_locked_output() -> None:
    units = find_units(from_proto(parse_sample(CHAIN.replace("Add (b, BODY)", "Tanh (b)"))))
    assert fed_groups(units) == {"W1": ("W2",), "W2": ("W3",), "W3": ()}


def test_a_residual_stream_feeds_itself() -> None:
    units = find_units(from_proto(parse_sample(CHAIN.replace("BODY", "r"))))
    assert fed_groups(units) == {"W1": ("W1", "W3"), "W3": ()}


def test_costs_by_name_add_up_to_the_whole() -> None:
    units = find_units(from_proto(parse_sample(CHAIN.replace("BODY", "r"))))
    assert costs_by_name(units, "macs") == {"a": 24, "b": 36, "y": 12}
    assert costs_by_name(units, "params") == {"W1": 24, "W2": 36, "W3": 12}
    for kind in ("macs", "params"):
        assert sum(costs_by_name(units, kind).values()) == Cost(units, kind).dense()  # type: ignore[arg-type]


TIED = """
<ir_version: 8, opset_import: ["" : 17]>
tied (float[N,8] x) => (float[N,8] y)
<float[8,6] W>
{
   a = MatMul (x, W)
   r = Relu (a)
   t = Transpose (W)
   y = MatMul (r, t)
}
"""


def test_units_that_one_axis_writes_and_reads_are_called_by_its_weight() -> None:
    model = from_proto(parse_sample(TIED))
    (group,) = find_units(model).groups
    assert (group.name, group.count, group.tensors) == ("W", 6, ("W",))
    ignored = find_units(model, ignore=["W"])
    assert not ignored.groups
    assert [(lock.name, lock.reason) for lock in ignored.locked] == [("W", "ignored by 'W'")]
    assert fed_groups(find_units(model)) == {"W": ("W",)}
