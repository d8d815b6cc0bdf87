"""Model-local functions are seen through; weights that two places share are one."""

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxadmm.graph.model import load, to_proto
from tests.rewrite import laws
from tests.rewrite.plans import KINDS
from tests.samples_text import parse_sample

HEADER = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>'
FUNCTIONS = (
    """
<domain: "own", opset_import: ["" : 17]>
dense (x, w, b) => (y)
{
   m = MatMul (x, w)
   y = Add (m, b)
}
""",
    """
<domain: "own", opset_import: ["" : 17, "own" : 1]>
tail (x) => (y)
{
   w = Constant <value = float[4,2] {1, -2, 3, -4, 5, -6, 7, -8}> ()
   r = Relu (x)
   y = MatMul (r, w)
}
""",
)


def model_of(body: str, weights: str, *, functions: tuple[str, ...] = FUNCTIONS) -> onnx.ModelProto:
    model = parse_sample(f"{HEADER} called (float[N,6] x) => (float[N,2] y) <{weights}> {{ {body} }}")
    model.functions.extend(parser.parse_function(text) for text in functions)
    return model


def check(original: onnx.ModelProto, kind: str) -> laws.Case:
    held = (laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk)
    (case,) = laws.hold(original, *held, kinds=[kind], seeds=[1])
    return case


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_is_seen_through_in_each_of_its_calls(kind: str) -> None:
    original = model_of(
        "h = own.dense (x, W1, B1) r = Relu (h) i = own.dense (r, W3, B3) z = Relu (i) y = own.dense (z, W2, B2)",
        "float[6,5] W1, float[5] B1, float[5,7] W3, float[7] B3, float[7,2] W2, float[2] B2",
    )
    case = check(original, kind)
    assert sorted(group.count for group in case.units.groups) == [5, 7]
    assert len(to_proto(case.masked).functions) == 2, "the masked original calls what the original calls"


def test_a_weight_inside_of_a_function_is_pruned_with_the_rest() -> None:
    case = check(model_of("h = own.dense (x, W1, B1) y = own.tail (h)", "float[6,4] W1, float[4] B1"), "one goes")
    assert [group.count for group in case.units.groups] == [4]


def test_a_function_of_another_opset_locks_what_it_is_given_by_name() -> None:
    older = '<domain: "own", opset_import: ["" : 14]> positive (x) => (y) { y = Relu (x) }'
    weights = "float[6,4] W1, float[4,2] W2"
    original = model_of("h = MatMul (x, W1) r = own.positive (h) y = MatMul (r, W2)", weights, functions=(older,))
    _, units = laws.units_of(original)
    assert not units.groups
    assert any("positive" in group.reason for group in units.locked), units.locked


TIED = """<ir_version: 8, opset_import: ["" : 17]>
tied (float[N,5,9] x) => (float[N,5,9] y)
<float[9,6] W1, float[6,7] W3, float[7,6] W4, float[6] B3> {
   i = ArgMax <axis: int = 2, keepdims: int = 0> (x)
   e = Gather (W1, i)
   m = MatMul (e, W3)
   r = Relu (m)
   n = MatMul (r, W4)
   z = Add (n, B3)
   t = Transpose <perm: ints = [1, 0]> (W1)
   y = MatMul (z, t)
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_tied_with_the_output_shrinks_exactly_in_both_places(kind: str) -> None:
    """Zeros in its columns as reader are zeros in what it writes, which is read by W3 alone."""
    original = parse_sample(TIED)
    case = check(original, kind)
    groups = {group.name: group.count for group in case.units.groups}
    assert groups == {"W3": 7, "W4": 6}, case.units.locked
    (embedded,) = [group for group in case.units.groups if group.name == "W4"]
    assert "B3" in embedded.tensors
    assert {reader.tensor for reader in case.units.readers if (reader.units >= embedded.start).all()} >= {"W1"}


def test_the_masked_original_computes_what_the_written_out_original_computes() -> None:
    original = model_of("h = own.dense (x, W1, B1) y = own.tail (h)", "float[6,4] W1, float[4] B1")
    model, units = laws.units_of(original)
    case = laws.prune(original, model, units, np.ones(units.count, np.bool_))
    laws.law_masked_equals_shrunk(case)
    assert to_proto(load(original)).functions == to_proto(case.shrunk).functions
