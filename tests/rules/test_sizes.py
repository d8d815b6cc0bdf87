"""Sizes that are computed while running: a cut adds no nodes where they come right by themselves."""

from collections import Counter

import numpy as np
import onnx
import pytest

from onnxadmm.graph.model import to_proto
from onnxadmm.rewrite.shrink import shrink
from tests.rewrite import laws
from tests.samples_text import parse_sample

_VECTORS = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] rest = {-1}, int64[1] eight = {8}"


def network(body: str) -> onnx.ModelProto:
    """A convolution, a body that makes ``r`` [N, 8, P] of its result ``a`` [N, 8, 4, 4], and a layer behind."""
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        sized (float[N,3,16,16] x) => (float[N,P,3] y)
        <float[8,3,4,4] W, float[8,3] V, {_VECTORS}, int64 first = {{0}}, int64[2] pair = {{0, 1}}>
        {{ a = Conv <strides: ints = [4, 4]> (x, W)
          {body}
          t = Transpose <perm: ints = [0, 2, 1]> (r)
          y = MatMul (t, V) }}"""
    )


def cut(original: onnx.ModelProto) -> onnx.GraphProto:
    model, units = laws.units_of(original)
    assert [group.count for group in units.groups] == [8], units.locked
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(2))
    return to_proto(shrink(model, units, np.arange(8) % 2 == 0)).graph


def kinds(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


FOLLOWS = {
    "the front of a shape": "s = Shape (a) f = Slice (s, zero, two, zero) n = Concat <axis: int = 0> (f, rest)",
    "elements one by one": """s = Shape (a) b = Gather (s, first) c = Gather (s, one) u = Unsqueeze (b, zero)
        n = Concat <axis: int = 0> (u, c, rest)""",
    "two elements at once": "s = Shape (a) f = Gather (s, pair) n = Concat <axis: int = 0> (f, rest)",
    "a constant among them": """s = Shape (a) b = Slice (s, zero, one, zero)
        n = Concat <axis: int = 0> (b, eight, rest)""",
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_sizes_that_come_right_by_themselves_take_no_node(name: str) -> None:
    original = network(f"{FOLLOWS[name]} r = Reshape (a, n)")
    assert kinds(cut(original)) == kinds(original.graph)


def test_sizes_that_something_else_reads_stay_what_they_were_for_it() -> None:
    """The product of all sizes is an output's; a vector with two readers is no one reader's alone."""
    original = network(
        """s = Shape (a) f = Slice (s, zero, two, zero) n = Concat <axis: int = 0> (f, rest) q = Reshape (a, n)
        p = ReduceProd <keepdims: int = 0> (f) d = Cast <to: int = 1> (p) r = Add (q, d)"""
    )
    assert Counter(kinds(cut(original))) == Counter([*kinds(original.graph), "Where", "Where"])


def test_readers_of_one_vector_share_what_it_becomes() -> None:
    original = network(
        """s = Shape (a) f = Slice (s, zero, two, zero) n = Concat <axis: int = 0> (f, rest) q = Reshape (a, n)
        b = Exp (a) e = Reshape (b, n) r = Add (q, e)"""
    )
    assert Counter(kinds(cut(original))) == Counter([*kinds(original.graph), "Where", "Where"])
