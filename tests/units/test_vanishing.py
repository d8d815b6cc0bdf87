"""Which groups may go altogether: those whose every reader only adds to something else."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.errors import OptionError, PlanError
from onnxadmm.graph.model import from_proto
from onnxadmm.plan.plan import Plan
from onnxadmm.units.units import find_units
from onnxadmm.units.vanishing import may_vanish
from tests.rewrite import laws
from tests.rewrite.plans import without_branches
from tests.samples_text import parse_sample

#: A residual branch of two products and what may stand instead of some lines.
BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[N,5] x) => (float[N,3] y)
<float[5,6] W0, float[6,4] W1, float[4] b1, float[4,6] W2, float[6] b2, float[6,3] W3, float[1,6] b3, float[6] b4>
{
   s = MatMul (x, W0)
   a = MatMul (s, W1)
   c = Add (a, b1)
   h = Relu (c)
   d = MatMul (h, W2)
   e = Add (b2, d)
   t = Add (e, s)
   y = MatMul (t, W3)
}
"""
CONVOLUTIONS = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[N,3,6,6] x) => (float[N,2] y)
<float[6,3,3,3] W0, float[4,6,1,1] W1, float[4] b1, float[4,1,3,3] Wd, float[6,4,1,1] W2, float[6] b2,
 float[2,6,1,1] W3>
{
   s = Conv <pads = [1,1,1,1]> (x, W0)
   a = Conv (s, W1, b1)
   h = Relu (a)
   m = Conv <pads = [1,1,1,1], group = 4> (h, Wd)
   d = Conv (m, W2, b2)
   t = Add (s, d)
   r = Conv (t, W3)
   g = GlobalAveragePool (r)
   y = Flatten (g)
}
"""


def names(text: str) -> set[str]:
    model = from_proto(parse_sample(text))
    units = find_units(model)
    vanishing = may_vanish(model, units)
    return {group.name for group in units.groups if group.start in vanishing}


@pytest.mark.parametrize("text", [BLOCK, CONVOLUTIONS], ids=["products", "convolutions"])
def test_the_inner_width_of_a_residual_branch_may_go(text: str) -> None:
    assert names(text) == {"W1"}


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("t = Add (e, s)", "t = Mul (e, s)"),
        ("t = Add (e, s)", "r = Relu (e)\n t = Add (r, s)"),
        ("t = Add (e, s)", "t = Add (e, e)"),
        ("t = Add (e, s)", "q = Relu (b3)\n t = Add (e, q)"),
        ("t = Add (e, s)", "k = ReduceSum <keepdims = 1> (h)\n u = Add (e, s)\n t = Add (u, k)"),
        ("t = Add (e, s)", "p = MatMul (h, W2)\n q = Relu (p)\n u = Add (e, s)\n t = Add (u, q)"),
        ("y = MatMul (t, W3)", "u = MatMul (t, W3)\n z = Shape (h)\n v = Cast <to = 1> (z)\n"
         " w = ReduceSum <keepdims = 0> (v)\n y = Add (u, w)"),
    ],
    ids=[
        *("a product", "an activation behind it", "nothing else", "one row for all", "a sum over it"),
        *("another reader", "its shape"),
    ],
)  # fmt: skip
def test_what_is_needed_otherwise_keeps_a_unit(line: str, other: str) -> None:
    assert line in BLOCK
    assert names(BLOCK.replace(line, other)) == set()


@pytest.mark.parametrize(
    ("text", "line", "others"),
    [
        (BLOCK, "t = Add (e, s)", "g = Mul (e, b3)\n t = Add (g, s)"),
        (BLOCK, "t = Add (e, s)", "i = Identity (e)\n g = Mul (b3, i)\n k = Add (g, b4)\n t = Add (s, k)"),
        (CONVOLUTIONS, "t = Add (s, d)", "n = BatchNormalization (d, q1, q2, q3, positive_q4)\n t = Add (s, n)"),
        (CONVOLUTIONS, "t = Add (s, d)", "n = Transpose <perm = [0,2,3,1]> (d)\n m2 = Mul (n, q1)\n"
         " o = Transpose <perm = [0,3,1,2]> (m2)\n t = Add (s, o)"),
    ],
    ids=["a scale", "a scale and a shift", "a normalisation", "a scale of channels that stand last"],
)  # fmt: skip
@pytest.mark.parametrize("offset", [True, False])
def test_what_scales_a_branch_goes_with_it(text: str, line: str, others: str, offset: bool) -> None:
    text = text.replace(
        "float[2,6,1,1] W3>", "float[2,6,1,1] W3,\n float[6] q1, float[6] q2, float[6] q3, float[6] positive_q4>"
    )
    text = (
        text.replace(line, others)
        if offset
        else text.replace(line, others).replace("(m, W2, b2)", "(m, W2)").replace("e = Add (b2, d)", "e = Identity (d)")
    )
    assert names(text) == {"W1"}
    proto = parse_sample(text)
    model, units = laws.units_of(proto)
    keep = without_branches(model, units, seed=0)
    assert keep is not None
    case = laws.prune(proto, model, units, keep)
    laws.law_masked_equals_shrunk(case)
    laws.law_shrunk_is_valid(case)
    kinds = [node.op_type for node in case.shrunk_message.graph.node]
    assert not {"Mul", "BatchNormalization", "Transpose", "Identity"} & set(kinds)


def test_of_two_branches_that_make_up_a_sum_neither_may_go() -> None:
    both = BLOCK.replace("float[6] b2,", "float[6] b2, float[6,4] W4, float[4,6] W5,").replace(
        "t = Add (e, s)", "i = MatMul (s, W4)\n j = Relu (i)\n k = MatMul (j, W5)\n t = Add (e, k)"
    )
    assert names(both) == set()
    assert names(both.replace("t = Add (e, k)", "u = Add (e, s)\n t = Add (u, k)")) == {"W1", "W4"}


def test_a_shortcut_that_is_a_product_stays_where_the_branch_goes() -> None:
    shorter = BLOCK.replace("float[6] b2,", "float[6] b2, float[6,6] W4,").replace(
        "t = Add (e, s)", "k = MatMul (s, W4)\n t = Add (e, k)"
    )
    assert names(shorter) == {"W1"}


@pytest.mark.parametrize("text", [BLOCK, CONVOLUTIONS], ids=["products", "convolutions"])
def test_the_branch_is_gone_and_its_offset_is_added(text: str) -> None:
    proto = parse_sample(text)
    model, units = laws.units_of(proto)
    keep = np.ones(units.count, np.bool_)
    (start,) = may_vanish(model, units)
    (group,) = [group for group in units.groups if group.start == start]
    keep[group.start : group.start + group.count] = False
    case = laws.prune(proto, model, units, keep)
    assert laws.law_masked_equals_shrunk(case).passed
    small = case.shrunk_message
    left = {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}
    offset = {"b2": [6]} if text is BLOCK else {"d_constant": [6, 1, 1]}
    assert left.keys() - {"b3", "b4"} == {"W0", "W3", *offset}
    assert left.items() >= offset.items()
    kinds = [node.op_type for node in small.graph.node]
    assert kinds == (["MatMul", "Add", "MatMul"] if text is BLOCK else ["Conv", "Add", "Conv", *kinds[3:]])
    # Without offsets there is no sum either.
    bare = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in bare.graph.initializer:
        if tensor.name.startswith("b2"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(6, np.float32), "b2"))
    model, units = laws.units_of(bare)
    case = laws.prune(bare, model, units, keep)
    assert laws.law_masked_equals_shrunk(case).passed
    assert "Add" not in [node.op_type for node in case.shrunk_message.graph.node]


def test_a_sum_that_is_an_output_stays_one_with_the_offset() -> None:
    text = BLOCK.replace("(float[N,3] y)", "(float[N,3] y, float[N,6] t)")
    assert names(text.replace("   e = Add (b2, d)\n", "").replace("Add (e, s)", "Add (d, s)")) == set()
    proto = parse_sample(text)
    model, units = laws.units_of(proto)
    keep = without_branches(model, units, seed=0)
    assert keep is not None
    case = laws.prune(proto, model, units, keep)
    assert laws.law_masked_equals_shrunk(case).passed
    laws.law_signature_is_unchanged(case)


def test_units_go_to_nothing_only_where_that_was_asked_for() -> None:
    proto = parse_sample(CONVOLUTIONS)
    usual, free = (
        oa.rank(proto, budget={"macs": 0.62}, limits=oa.Limits(keep_at_least=least, round_to=1)) for least in (1, 0)
    )
    assert min(group.units - len(group.removed) for group in usual.groups) > 0
    with pytest.raises(OptionError, match="--keep-at-least: expected at least 0"):
        oa.Limits(keep_at_least=-1)
    model = from_proto(proto)
    units = find_units(model)
    limits = {each.name: each.keep_at_least for each in oa.Limits(keep_at_least=0).groups(model, units)}
    assert limits["W1"] == 0
    assert {least for name, least in limits.items() if name != "W1"} == {1}
    assert oa.verify(proto, oa.shrink(proto, free), free).passed


@pytest.mark.parametrize(("name", "fits"), [("W0", False), ("W1", True)])
def test_a_plan_may_empty_a_group_that_may_go_and_no_other(name: str, fits: bool) -> None:
    proto = parse_sample(BLOCK)
    plan = oa.rank(proto, ratio=0.0)
    emptied = [
        replace(group, removed=tuple(range(group.units))) if group.name == name else group for group in plan.groups
    ]
    plan = Plan.from_json(replace(plan, groups=tuple(emptied)).to_json())
    if fits:
        assert oa.verify(proto, oa.shrink(proto, plan), plan).passed
        return
    with pytest.raises(PlanError, match="'W0' of the plan: expected at least one unit that stays"):
        oa.shrink(proto, plan)
