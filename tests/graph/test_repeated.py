"""Masks and states that several layers share: they tie none of them to another, and come back where they may."""

import numpy as np
import onnx
import pytest

from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import load, to_proto
from onnxadmm.rewrite.shrink import shrink
from tests.rewrite import laws
from tests.samples_text import parse_sample


def two_attentions(mask: str) -> onnx.ModelProto:
    """Two layers of four heads each, of two features; ``mask`` makes ``e`` [1, 4, 5, 5] of ``m`` [1, 1, 5, 5]."""
    layers = ""
    for number, source in ((1, "x"), (2, "r1")):
        layers += f"""
            q{number} = MatMul ({source}, Q{number})
            s{number} = Reshape (q{number}, split)
            h{number} = Transpose <perm: ints = [0, 2, 1, 3]> (s{number})
            t{number} = Transpose <perm: ints = [0, 2, 3, 1]> (s{number})
            p{number} = MatMul (h{number}, t{number})
            a{number} = Add (p{number}, e)
            w{number} = Softmax <axis: int = -1> (a{number})
            c{number} = MatMul (w{number}, h{number})
            b{number} = Transpose <perm: ints = [0, 2, 1, 3]> (c{number})
            f{number} = Reshape (b{number}, merged)
            r{number} = MatMul (f{number}, O{number})"""
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        two (float[1,5,3] x) => (float[1,5,3] r2)
        <float[3,8] Q1, float[8,3] O1, float[3,8] Q2, float[8,3] O2, float[1,1,5,5] m, int64[4] sizes = {{1,4,5,5}},
        int64[4] times = {{1,4,1,1}}, float[1] scale, int64[4] split = {{0, 0, 4, 2}}, int64[3] merged = {{0, 0, -1}}>
        {{ k = ReduceSum (x)
          d = Mul (k, m)
          {mask}
          {layers} }}"""
    )


MASKS = {
    "Expand": "e = Expand (d, sizes)",
    "Expand and a chain": "u = Expand (d, sizes)\nv = Neg (u)\ne = Mul (v, scale)",
    "Tile": "e = Tile (d, times)",
}


@pytest.mark.parametrize("name", MASKS)
def test_heads_of_two_layers_do_not_tie_through_a_mask_that_is_repeated(name: str) -> None:
    original = two_attentions(MASKS[name])
    _, units = laws.units_of(original)
    assert {"Q1", "Q2"} <= {group.name for group in units.groups}
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(1))


def test_copies_come_back_where_both_layers_keep_equally_many_heads() -> None:
    original = two_attentions(MASKS["Expand and a chain"])
    model, units = laws.units_of(original)
    assert sum(node.op_type == "Expand" for node in inline(model).ir.graph) == 2
    keep = np.ones(units.count, np.bool_)
    for group in units.groups:
        keep[group.members[0][0]] = False
    small = to_proto(shrink(model, units, keep))
    assert sum(node.op_type == "Expand" for node in small.graph.node) == 1
    assert not any(node.metadata_props for node in small.graph.node)


def test_a_mask_that_one_layer_reads_stays_as_it_is() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        one (float[1,5,3] x) => (float[1,5,4] y)
        <float[3,4] W1, float[1,1,1] m, int64[3] sizes = {1, 5, 4}>
        { h = MatMul (x, W1)
          e = Expand (m, sizes)
          y = Add (h, e) }"""
    model = load(parse_sample(text))
    assert inline(model) is model


def test_sizes_that_are_filled_in_are_not_copied() -> None:
    """Exporters write an Expand with as many numbers of -1 as there are axes, which two nodes read."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
        sizes (float[1,5,3] x) => (float[1,5,4] y)
        <float[3,4] W1, float[1,1,4] m, int64[3] sizes = {1, 5, 4}, int64[1] three = {3}, int64 minus = {-1}>
        { h = MatMul (x, W1)
          o = ConstantOfShape <value: tensor = int64[1] {1}> (three)
          k = Mul (o, minus)
          q = Equal (sizes, k)
          w = Where (q, o, sizes)
          e = Expand (m, w)
          y = Add (h, e) }"""
    model = load(parse_sample(text))
    assert inline(model) is model
