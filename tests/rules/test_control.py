"""If, Loop and Scan: branches that are known are written out, other bodies stay as they are, to the last weight."""

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxadmm.errors import NothingToPruneError
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import load, to_proto
from onnxadmm.planning import rank
from onnxadmm.units.cost import Cost
from tests.rewrite import laws
from tests.rewrite.plans import KINDS
from tests.samples_text import load_sample, parse_sample

HEADER = """<ir_version: 8, opset_import: ["" : 17]>
branching (float[N,6] x) => (float[N,2] y)
<float[6,4] W1, float[4] B1, float[4,5] W3, float[5,2] W2, float[4,4] W4, bool[1] yes = {1}, bool no = {0}> {
   m = MatMul (x, W1)
   h = Add (m, B1)
"""
END = """
   g = MatMul (z, W3)
   r = Relu (g)
   y = MatMul (r, W2)
}"""
SQUARE = "{1, -2, 3, -4, 5, -6, 7, -8, 8, 7, -6, 5, 4, -3, 2, 1}"

#: Branches that are known before running, and the sizes of the groups behind them.
DECIDED: dict[str, tuple[list[int], str]] = {
    "either branch passes on": (
        [4, 5],
        "z = If (no) <then_branch = t () => (float[N,4] a) {a = Softmax (h)}, "
        "else_branch = e () => (float[N,4] a) {a = Relu (h)}>",
    ),
    "a weight of the graph in the branch": (
        [4, 4, 5],
        "z = If (yes) <then_branch = t () => (float[N,4] a) {b = Relu (h) a = MatMul (b, W4)}, "
        "else_branch = e () => (float[N,4] a) {a = MatMul (h, W4)}>",
    ),
    "a weight of its own": (
        [4, 4, 5],
        f"z = If (yes) <then_branch = t () => (float[N,4] a) <float[4,4] own = {SQUARE}> {{a = MatMul (h, own)}}, "
        f"else_branch = e () => (float[N,4] a) <float[4,4] own = {SQUARE}> {{b = Neg (own) a = MatMul (h, b)}}>",
    ),
    "a constant of its own": (
        [4, 4, 5],
        f"z = If (no) <then_branch = t () => (float[N,4] a) {{a = Identity (h)}}, "
        f"""else_branch = e () => (float[N,4] a)
            {{own = Constant <value = float[4,4] {SQUARE}> () a = MatMul (h, own)}}>""",
    ),
    "one in the other": (
        [4, 4, 5],
        f"""z = If (yes) <
            then_branch = t () => (float[N,4] a) <float[4,4] own = {SQUARE}> {{
               b = MatMul (h, own)
               a = If (no) <then_branch = u () => (float[N,4] d) {{d = Softmax (b)}},
                            else_branch = v () => (float[N,4] d) {{d = Tanh (b)}}>
            }},
            else_branch = e () => (float[N,4] a) {{a = Softmax (h)}}>""",
    ),
    "two behind each other with the same names inside": (
        [4, 4, 5],
        f"""f = If (yes) <then_branch = t () => (float[N,4] a) <float[4,4] own = {SQUARE}> {{a = MatMul (h, own)}},
                          else_branch = e () => (float[N,4] a) {{a = Neg (h)}}>
            z = If (no) <then_branch = t () => (float[N,4] a) {{a = Softmax (f)}},
                         else_branch = e () => (float[N,4] a) <float[4] own = {{1, -1, 2, 3}}> {{a = Add (f, own)}}>""",
    ),
    "what passes by": (
        [4, 5],
        "w, z = If (yes) <then_branch = t () => (float[N,4] a, float[N,4] b) {a = Neg (h) b = Identity (h)}, "
        "else_branch = e () => (float[N,4] a, float[N,4] b) {a = Softmax (h) b = Neg (h)}>",
    ),
    "a condition that is a size": (
        [4, 5],
        """u = Unsqueeze (h, last)
            n = Shape <start: int = 2, end: int = 3> (u)
            c = Equal (n, one)
            z = If (c) <then_branch = t () => (float[N,4] a) {a = Squeeze (u, last)},
                        else_branch = e () => (float[N,4,1] a) {a = Identity (u)}>""",
    ),
}


def branching(body: str, *, end: str = END) -> onnx.ModelProto:
    head = HEADER.replace("bool no", "int64[1] last = {2}, int64[1] one = {1}, bool no")
    return parse_sample(head + body + end)


def bodies(graph: onnx.GraphProto) -> list[tuple[list[object], dict[str, bytes]]]:
    """Nodes and weights of all graphs inside of a graph's nodes."""
    found = []
    for body in [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]:
        nodes: list[object] = [(node.op_type, node.name, list(node.input), list(node.output)) for node in body.node]
        weights = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in body.initializer}
        found += [(nodes, weights), *bodies(body)]
    return found


def check(original: onnx.ModelProto, kind: str) -> laws.Case:
    held = (laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk)
    (case,) = laws.hold(original, *held, kinds=[kind], seeds=[1])
    return case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECIDED)
def test_a_branch_that_is_known_shrinks_as_if_it_stood_in_the_graph(name: str, kind: str) -> None:
    sizes, body = DECIDED[name]
    case = check(branching(body), kind)
    assert sorted(group.count for group in case.units.groups) == sizes, case.units.locked
    assert not bodies(to_proto(case.shrunk).graph)


@pytest.mark.parametrize("name", DECIDED)
def test_a_branch_that_is_written_out_computes_what_the_if_computes(name: str) -> None:
    original = branching(DECIDED[name][1])
    written = to_proto(inline(load(original)))
    onnx.checker.check_model(written, full_check=True)
    feed = laws.feeds(original, seed=4)
    for before, after in zip(laws.run(original, feed), laws.run(written, feed), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_node_of_a_branch_gets_another_name_where_the_graph_has_one_like_it() -> None:
    original = branching(
        "z = If (no) <then_branch = t () => (float[N,4] a) {a = Neg (h)}, "
        "else_branch = e () => (float[N,4] a) {a = Relu (h)}>"
    )
    (decided,) = (node for node in original.graph.node if node.op_type == "If")
    decided.attribute[1].g.node[0].name = "act"
    original.graph.node[-1].name = "act"
    names = [node.name for node in check(original, "one goes").shrunk_message.graph.node if node.name]
    assert sorted(names) == ["act", "act_1"]


def test_nothing_is_left_of_a_branch_that_is_not_taken() -> None:
    body = """s = Shape (h)
        n = Gather (s, one)
        c = Equal (n, four)
        z = If (c) <
            then_branch = t () => (float[N,4] a) {a = Relu (h)},
            else_branch = e () => (float[N,4] a) {
               b = Exp (W4)
               a = If (yes) <then_branch = u () => (float[N,4] d) {d = MatMul (h, b)},
                             else_branch = v () => (float[N,4] d) {d = MatMul (h, W4)}>
            }>"""
    original = branching(body)
    original.graph.initializer.append(numpy_helper.from_array(np.array([4]), "four"))
    written = to_proto(inline(load(original))).graph
    assert [node.op_type for node in written.node] == ["MatMul", "Add", "Relu", "MatMul", "Relu", "MatMul"]
    assert not {"W4", "yes", "four", "one"} & {tensor.name for tensor in written.initializer}
    assert "no" in {tensor.name for tensor in written.initializer}, "what the user left unused stays"


def test_an_if_that_gives_a_graph_output_leaves_its_name_there() -> None:
    body = """g = MatMul (h, W3)
        y = If (yes) <then_branch = t () => (float[N,2] a) {a = MatMul (g, W2)},
                      else_branch = e () => (float[N,2] a) {b = MatMul (g, W2) a = Neg (b)}>"""
    case = check(branching(body, end="}"), "random")
    assert [value.name for value in to_proto(case.shrunk).graph.output] == ["y"]
    assert sorted(group.count for group in case.units.groups) == [4, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_in_a_branch_that_is_not_known_keeps_what_it_captures(kind: str) -> None:
    body = f"""s = ReduceMax <keepdims: int = 0> (x)
        c = Greater (s, half)
        z = If (yes) <
            then_branch = t () => (float[N,4] a) <float[4,4] own = {SQUARE}> {{
               b = MatMul (h, own)
               a = If (c) <then_branch = u () => (float[N,4] d) {{d = Neg (b)}},
                           else_branch = v () => (float[N,4] d) {{d = Tanh (b)}}>
            }},
            else_branch = e () => (float[N,4] a) {{a = Softmax (h)}}>"""
    original = branching(body)
    original.graph.initializer.append(numpy_helper.from_array(np.array(0.7, np.float32), "half"))
    case = check(original, kind)
    assert sorted(group.count for group in case.units.groups) == [4, 5]
    assert any(re.fullmatch(r"If \(.+\) chooses its branch while running", g.reason) for g in case.units.locked)
    assert len(bodies(to_proto(case.shrunk).graph)) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_bodies_that_are_not_known_stay_and_name_what_they_lock(operator: str, kind: str) -> None:
    original = load_sample(operator)
    case = check(original, kind)
    locked = {name for group in case.units.locked if operator in group.reason for name in group.tensors}
    assert {"W1", "B1"} <= locked
    assert [group.name for group in case.units.groups] == ["W3"]
    assert bodies(to_proto(case.shrunk).graph) == bodies(original.graph)
    assert bodies(to_proto(case.masked).graph) == bodies(original.graph)


NESTED = f"""<ir_version: 8, opset_import: ["" : 17]>
nested (float[N,6] x) => (float[N,2] y)
<float[6,4] W1, float[6,4] W4, float[4,5] W3, float[5,2] W2, float[4,4] W5,
 int64 three = {{3}}, float large = {{0.7}}> {{
   h = MatMul (x, W1)
   k = MatMul (x, W4)
   z = Loop (three, , k) <body = step (int64 i, bool go, float[N,4] before) => (bool on, float[N,4] after)
      <float[4,4] own = {SQUARE}> {{
      on = Identity (go)
      m = MatMul (before, own)
      s = ReduceMax <keepdims: int = 0> (m)
      c = Greater (s, large)
      after = If (c) <then_branch = t () => (float[N,4] a) {{b = MatMul (m, W5) a = Tanh (b)}},
                      else_branch = e () => (float[N,4] a) {{a = Add (k, m)}}>
   }}>
   u = Relu (h)
   g = MatMul (u, W3)
   d = MatMul (z, W3)
   w = Add (g, d)
   y = MatMul (w, W2)
}}"""


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_a_nested_body_captures_stay_and_what_passes_by_shrinks(kind: str) -> None:
    case = check(parse_sample(NESTED), kind)
    reasons = {name: group.reason for group in case.units.locked for name in group.tensors}
    assert "Loop (z)" in reasons["W4"]
    assert "Loop (z)" in reasons["W5"]
    assert "W3" in {name for group in case.units.groups for name in group.tensors}
    before, after = (bodies(to_proto(model).graph) for model in (case.model, case.shrunk))
    assert before == after


def test_a_plan_names_weights_of_branches_and_its_budget_counts_them() -> None:
    original = branching(DECIDED["a weight of its own"][1])
    model, units = laws.units_of(original)
    plan = rank(model, ratio=0.5)
    keep = plan.keep(model, units)
    assert [int((~keep[group.start : group.start + group.count]).sum()) for group in units.groups] == [2, 2, 2]
    assert Cost(units, "params").dense() == 6 * 4 + 4 + 4 * 4 + 4 * 5 + 5 * 2


def test_weights_in_the_branches_of_an_unknown_condition_are_named_and_counted() -> None:
    """As a network that is written once per sampling rate: every weight stands in a branch."""
    weight = f"own = Constant <value = float[4,4] {SQUARE}> ()"
    original = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        rates (float[N,4] x, bool fast) => (float[N,4] y) <float[4] bias> {{
           y = If (fast) <
              then_branch = t () => (float[N,4] a) {{{weight} h = MatMul (x, own) a = Add (h, bias)}},
              else_branch = e () => (float[N,4] b) <float[4,4] stored = {SQUARE}> {{b = MatMul (x, stored)}}>
        }}"""
    )
    units = laws.units_of(original)[1]
    within = [group for group in units.locked if not group.tensors]
    assert sorted((group.name, group.count) for group in within) == [("own", 4), ("stored", 4)]
    assert {group.reason for group in units.locked} == {"If (y) chooses its branch while running"}
    assert Cost(units, "params").dense() == 4 + 16 + 16
    with pytest.raises(NothingToPruneError, match=r"If \(y\) chooses its branch while running"):
        rank(load(original), ratio=0.5)
