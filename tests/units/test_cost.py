"""Multiply-accumulates are those of one sample, wherever a reshape or a transpose puts the batch."""

import math

import numpy as np
import onnx
import pytest

from onnxadmm.graph.model import to_proto
from onnxadmm.surgery import find_groups
from onnxadmm.units.cost import Cost, CostKind
from tests.hostile.seeds import seeds
from tests.rewrite import laws
from tests.rules.heads import HEADS
from tests.samples_text import parse_sample

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
counted (float[N,5,6] x) => (float[N,5,2] y)
<float[6,4] W1, float[4] B1, float[4,2] W2,"""

#: Networks with a batch that is merged with tokens, moved, or both; MACs of one sample of the whole network.
NETWORKS: dict[str, tuple[int, str]] = {
    "tokens in the batch": (
        5 * (24 + 8),
        """int64[2] rows = {-1, 6}, int64[3] again = {-1, 5, 2}> {
        r = Reshape (x, rows)
        h = Gemm (r, W1, B1)
        s = Relu (h)
        t = Gemm (s, W2)
        y = Reshape (t, again)
        }""",
    ),
    "time first": (
        5 * (24 + 8),
        """float spare = {0}> {
        r = Transpose <perm: ints = [1, 0, 2]> (x)
        h = MatMul (r, W1)
        s = Relu (h)
        t = MatMul (s, W2)
        y = Transpose <perm: ints = [1, 0, 2]> (t)
        }""",
    ),
    "the batch last": (
        5 * (24 + 8),
        """float[4,6] W5, float[2,4] W6> {
        r = Transpose <perm: ints = [1, 2, 0]> (x)
        h = MatMul (W5, r)
        s = Relu (h)
        t = MatMul (W6, s)
        y = Transpose <perm: ints = [2, 0, 1]> (t)
        }""",
    ),
    "channels of two tokens each": (
        3 * 5 * 24 + 3 * 5 * 8,
        """int64[4] thrice = {1, 3, 1, 1}, int64[1] one = {1}, int64[3] merged = {-1, 5, 6},
        int64[4] parted = {-1, 3, 5, 2}> {
        u = Unsqueeze (x, one)
        e = Expand (u, thrice)
        r = Reshape (e, merged)
        h = MatMul (r, W1)
        s = Relu (h)
        t = MatMul (s, W2)
        p = Reshape (t, parted)
        y = ReduceMean <axes: ints = [1], keepdims: int = 0> (p)
        }""",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cost_is_that_of_one_sample(name: str) -> None:
    expected, text = NETWORKS[name]
    original = parse_sample(HEAD + text)
    model, units = laws.units_of(original)
    assert Cost(units, "macs").dense() == expected == laws.count_macs(to_proto(model))
    (case,) = laws.hold(original, laws.law_cost_is_counted_on_the_shrunk_graph, kinds=["random"], seeds=[1])
    assert case.removed


@pytest.mark.parametrize(
    ("operator", "filters", "expected"), [("Conv", "6,4", 36 * 6 * 4 * 9), ("ConvTranspose", "4,6", 64 * 4 * 6 * 9)]
)
def test_a_convolution_costs_as_much_with_a_weight_that_is_computed(operator: str, filters: str, expected: int) -> None:
    original = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        modulated (float[N,3,8,8] x, float[1] s) => (float[n,m,p,q] y)
        <float[4,3,1,1] W1, float[{filters},3,3] W2>
        {{ h = Conv (x, W1)
          w = Mul (W2, s)
          y = {operator} (h, w) }}"""
    )
    model, units = laws.units_of(original)
    assert Cost(units, "macs").dense() == 64 * 4 * 3 + expected == laws.count_macs(to_proto(model))


@pytest.mark.parametrize("name", [name for name in HEADS if "computed" not in name])  # onnx does not follow ReduceProd
def test_the_cost_of_heads_is_that_of_one_sample(name: str) -> None:
    original = parse_sample(HEADS[name][1])
    model, units = laws.units_of(original)
    counted = laws.count_macs(to_proto(model))
    assert counted is not None
    assert math.isclose(Cost(units, "macs").dense(), counted)
    laws.hold(original, laws.law_cost_is_counted_on_the_shrunk_graph, kinds=["random"], seeds=range(2))


def test_a_cost_at_a_batch_of_two_would_be_found() -> None:
    """The comparison itself can fail."""
    original = parse_sample(HEAD + NETWORKS["tokens in the batch"][1])
    for axis in (original.graph.input[0], original.graph.output[0]):
        axis.type.tensor_type.shape.dim[0].dim_value = 2
    _, units = laws.units_of(original)
    assert np.isclose(Cost(units, "macs").dense(), 2 * NETWORKS["tokens in the batch"][0])


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("sample", ["Conv", "Concat", "Gemm", "LSTM", "Add", "Split", "MultiHeadAttention"])
def test_what_a_group_saves_is_the_difference_between_two_totals(sample: str, kind: CostKind) -> None:
    known = {name.rpartition("/")[2]: content for name, content in seeds()}
    units = find_groups(onnx.ModelProto.FromString(known[sample]))
    cost = Cost(units, kind)
    assert units.groups
    for group in units.groups:
        without = np.ones(units.count, dtype=np.bool_)
        without[group.start : group.start + group.count] = False
        saved = cost.saved(group.start, group.count)
        assert saved == pytest.approx(cost.dense() - cost.total(without), rel=1e-9)
