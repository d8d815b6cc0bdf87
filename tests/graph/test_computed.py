"""What is made of constants alone is written out where it pays, and of packed weights only the parts that are read."""

import numpy as np
import onnx
import pytest

from onnxadmm.graph import computed
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import load, to_proto
from onnxadmm.rewrite.shrink import shrink
from tests.rewrite import laws
from tests.samples_text import parse_sample


def table_of_positions(*, hidden: int = 64) -> onnx.ModelProto:
    """Scores of four heads, with a bias that a small network computes from a table of positions."""
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        scores (float[N,5,3] x) => (float[N,5,3] y)
        <float[3,8] Q, float[8,3] O, float[9,2] table, float[2,{hidden}] P1, float[{hidden}] B1, float[{hidden},4] P2,
        int64[25] index = {{0,1,2,3,4,5,6,7,8,0,1,2,3,4,5,6,7,8,0,1,2,3,4,5,6}}, int64[3] square = {{5, 5, 4}},
        int64[4] split = {{0, 0, 4, 2}}, int64[3] merged = {{0, 0, -1}}, int64[1] front = {{0}}>
        {{ p0 = MatMul (table, P1)
          p1 = Add (p0, B1)
          p2 = Relu (p1)
          p3 = MatMul (p2, P2)
          p4 = Gather (p3, index)
          p5 = Reshape (p4, square)
          p6 = Transpose <perm: ints = [2, 0, 1]> (p5)
          p7 = Unsqueeze (p6, front)
          p8 = Sigmoid (p7)
          q = MatMul (x, Q)
          s = Reshape (q, split)
          h = Transpose <perm: ints = [0, 2, 1, 3]> (s)
          t = Transpose <perm: ints = [0, 2, 3, 1]> (s)
          a = MatMul (h, t)
          b = Add (a, p8)
          w = Softmax <axis: int = -1> (b)
          c = MatMul (w, h)
          m = Transpose <perm: ints = [0, 2, 1, 3]> (c)
          f = Reshape (m, merged)
          y = MatMul (f, O) }}"""
    )


def stored(graph: onnx.GraphProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)


def test_a_network_over_a_table_is_written_out_where_its_layers_end() -> None:
    """What they give is smaller than they are, and than what is made of it: the rest is cut where it is computed."""
    original = table_of_positions()
    model, units = laws.units_of(original)
    assert [group.count for group in units.groups] == [4], units.locked
    assert not [group.reason for group in units.locked if "constants" in group.reason]
    keep = np.array([True, False, True, True])
    small = shrink(model, units, keep)
    assert small.ir.graph.initializers["p3"].shape == (9, 3)
    assert not small.ir.graph.initializers.keys() & {"table", "P1", "B1", "P2", "p8"}
    assert stored(to_proto(small).graph) < stored(original.graph)
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(1))


def test_a_network_over_a_table_that_is_smaller_than_what_it_gives_is_cut_where_it_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computed, "_ALWAYS_PAYS", 0)
    monkeypatch.setattr(computed, "_LARGEST_SHARE", 0.0)
    original = table_of_positions(hidden=1)
    model, units = laws.units_of(original)
    assert [group.count for group in units.groups] == [4], units.locked
    small = shrink(model, units, np.array([True, False, True, True]))
    assert small.ir.graph.initializers["P2"].shape == (1, 3)
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(1))


#: How the first rows of a packed weight are told from the others; those meet a constant, and these read a layer.
UNPACKED = {
    "Split": ("wq, wk = Split <axis: int = 0> (W, sizes)", "int64[2] sizes = {4, 8}"),
    "Split in three": ("wq, wk, wv = Split <axis: int = 0> (W, sizes)", "int64[3] sizes = {4, 4, 4}"),
    "Slice": (
        "wq = Slice (W, zero, four) wk = Slice (W, four, twelve)",
        "int64[1] zero = {0}, int64[1] four = {4}, int64[1] twelve = {12}",
    ),
}


def packed(name: str) -> onnx.ModelProto:
    body, sizes = UNPACKED[name]
    three = "three" in name
    values = "v = MatMul (h, wvt) kv = Add (k, v)" if three else "kv = Identity (k)"
    body += " wvt = Transpose <perm: ints = [1, 0]> (wv)" if three else ""
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        packed (float[N,5] x) => (float[3,N] y)
        <float[5,6] W1, float[12,6] W, float[3,6] latents, float[{4 if three else 8},4] W2, {sizes}>
        {{ h = MatMul (x, W1)
          {body}
          wqt = Transpose <perm: ints = [1, 0]> (wq)
          wkt = Transpose <perm: ints = [1, 0]> (wk)
          q = MatMul (latents, wqt)
          k = MatMul (h, wkt)
          {values}
          p = MatMul (kv, W2)
          pt = Transpose <perm: ints = [1, 0]> (p)
          s = MatMul (q, pt)
          y = Softmax <axis: int = 0> (s) }}"""
    )


@pytest.mark.parametrize("name", UNPACKED)
def test_a_part_of_a_weight_that_only_meets_a_constant_is_neither_offered_nor_kept(name: str) -> None:
    original = packed(name)
    model, units = laws.units_of(original)
    assert "W" not in units.axes
    for group in units.groups:
        keep = np.ones(units.count, np.bool_)
        keep[group.start] = False
        small = shrink(model, units, keep)
        kept = {value.name for node in small.ir.graph for value in node.inputs if value is not None}
        assert small.ir.graph.initializers.keys() <= kept
        wanted = {"W1", "W2", "q", "wk", *(["wv"] if "three" in name else [])}
        touched = {tensor for tensor in group.tensors if tensor not in ("W1", "W2")}
        assert not touched or small.ir.graph.initializers.keys() == wanted, group
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(2))


def test_parts_of_a_weight_that_is_read_as_a_whole_too_stay() -> None:
    original = packed("Split")
    original.graph.node.append(onnx.helper.make_node("Neg", ["W"], ["whole"]))
    original.graph.node.append(onnx.helper.make_node("ReduceSum", ["whole"], ["sum"], keepdims=0))
    original.graph.node.append(onnx.helper.make_node("Add", ["y", "sum"], ["z"]))
    original.graph.output[0].name = "z"
    written = to_proto(inline(load(original)))
    assert {"W", "q"} <= {tensor.name for tensor in written.graph.initializer}
