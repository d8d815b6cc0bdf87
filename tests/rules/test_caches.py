"""Attention with caches, biases and packed operands: heads go where that is exact, and stay by name where they show.

A bias on the scores has the batch of the data: onnxruntime 1.19.2 reads beyond a bias that all samples share. Its
rotary positions in GroupQueryAttention read memory that nobody wrote, so no case has them.
"""

import onnx
import pytest

from onnxadmm.graph.model import to_proto
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.rules.faults import Fault, caught, not_rewritten, plant, shifted, untied
from tests.samples_text import parse_sample

MICROSOFT = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
NEW = '<ir_version: 11, opset_import: ["" : 23]>'
PROJECTED = """
   q = MatMul (x, W1)
   k = MatMul (x, W3)
   v = MatMul (x, W4)
"""
GROUPED = f"""{PROJECTED}
   n = Shape <start: int = 0, end: int = 1> (x)
   f = Expand (last, n)
   lengths = Cast <to: int = 6> (f)
"""
LENGTHS = "int64[1] last = {4}, int32 five = {5}"

#: Units and blocks of the group of the queries, the operator that is meant, and a network.
CASES: dict[str, tuple[tuple[int, int], str, str]] = {
    "Attention with earlier tokens that are constants": (
        (2, 1),
        "Attention",
        f"""{NEW} a (float[2,5,6] x) => (float[2,5,2] y)
        <float[6,16] W1, float[6,8] W3, float[6,8] W4, float[16,2] W2, float[2,2,3,4] K, float[2,2,3,4] V> {{
        {PROJECTED}
        z, keys, values = Attention <q_num_heads: int = 4, kv_num_heads: int = 2> (q, k, v, , K, V)
        y = MatMul (z, W2)
        }}""",
    ),
    "Attention whose cache is seen keeps key heads, and queries of each": (
        (6, 2),
        "Attention",
        f"""{NEW} a (float[N,5,6] x, float[N,2,3,4] K, float[N,2,3,4] V)
        => (float[N,5,2] y, float[N,2,8,4] keys, float[N,2,8,4] values)
        <float[6,24] W1, float[6,8] W3, float[6,8] W4, float[24,2] W2> {{
        {PROJECTED}
        z, keys, values = Attention <q_num_heads: int = 6, kv_num_heads: int = 2> (q, k, v, , K, V)
        y = MatMul (z, W2)
        }}""",
    ),
    "one key head in a cache that is seen serves any number of queries": (
        (3, 1),
        "Attention",
        f"""{NEW} a (float[N,5,6] x, float[N,1,3,4] K, float[N,1,3,4] V)
        => (float[N,5,2] y, float[N,1,8,4] keys, float[N,1,8,4] values)
        <float[6,12] W1, float[6,4] W3, float[6,4] W4, float[12,2] W2> {{
        {PROJECTED}
        z, keys, values = Attention <q_num_heads: int = 3, kv_num_heads: int = 1> (q, k, v, , K, V)
        y = MatMul (z, W2)
        }}""",
    ),
    "MultiHeadAttention with earlier tokens that are constants": (
        (3, 1),
        "com.microsoft.MultiHeadAttention",
        f"""{MICROSOFT} a (float[2,5,6] x) => (float[2,5,2] y)
        <float[6,12] W1, float[6,12] W3, float[6,12] W4, float[36] B, float[12,2] W2,
         float[2,3,4,4] K, float[2,3,4,4] V, float[2,3,5,9] scores> {{
        {PROJECTED}
        z, keys, values = com.microsoft.MultiHeadAttention <num_heads: int = 3> (q, k, v, B, , scores, K, V)
        y = MatMul (z, W2)
        }}""",
    ),
    "MultiHeadAttention to keys and values by heads": (
        (3, 1),
        "com.microsoft.MultiHeadAttention",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y)
        <float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2, int64[4] cut = {{0, 0, 3, 4}}> {{
        {PROJECTED}
        c = Reshape (k, cut)
        d = Transpose <perm: ints = [0, 2, 1, 3]> (c)
        e = Reshape (v, cut)
        g = Transpose <perm: ints = [0, 2, 1, 3]> (e)
        z = com.microsoft.MultiHeadAttention <num_heads: int = 3> (q, d, g)
        y = MatMul (z, W2)
        }}""",
    ),
    "fused Attention with a bias for each head": (
        (3, 1),
        "com.microsoft.Attention",
        f"""{MICROSOFT} a (float[2,5,6] x) => (float[2,5,2] y)
        <float[6,36] W1, float[36] B, float[2,3,5,5] scores, float[12,2] W2> {{
        z = com.microsoft.Attention <num_heads: int = 3> (x, W1, B, , , scores)
        y = MatMul (z, W2)
        }}""",
    ),
    "fused Attention with values of another size and earlier tokens": (
        (4, 1),
        "com.microsoft.Attention",
        f"""{MICROSOFT} a (float[2,5,6] x) => (float[2,5,2] y)
        <float[6,48] W1, float[48] B, float[2,2,4,3,4] past, float[16,2] W2> {{
        z, present = com.microsoft.Attention <num_heads: int = 4, qkv_hidden_sizes: ints = [16, 16, 16]>
           (x, W1, B, , past)
        y = MatMul (z, W2)
        }}""",
    ),
    "fused Attention with narrow values": (
        (4, 1),
        "com.microsoft.Attention",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y)
        <float[6,40] W1, float[40] B, float[8,2] W2> {{
        z = com.microsoft.Attention <num_heads: int = 4, qkv_hidden_sizes: ints = [16, 16, 8]> (x, W1, B)
        y = MatMul (z, W2)
        }}""",
    ),
    "GroupQueryAttention of one packed operand": (
        (2, 1),
        "com.microsoft.GroupQueryAttention",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y) <float[6,64] W1, float[32,2] W2, {LENGTHS}> {{
        q = MatMul (x, W1)
        n = Shape <start: int = 0, end: int = 1> (x)
        f = Expand (last, n)
        lengths = Cast <to: int = 6> (f)
        z, keys, values = com.microsoft.GroupQueryAttention <num_heads: int = 4, kv_num_heads: int = 2>
           (q, , , , , lengths, five)
        y = MatMul (z, W2)
        }}""",
    ),
    "GroupQueryAttention whose cache is seen keeps key heads": (
        (4, 2),
        "com.microsoft.GroupQueryAttention",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y, float[N,2,5,16] keys, float[N,2,5,16] values)
        <float[6,64] W1, float[6,32] W3, float[6,32] W4, float[64,2] W2, {LENGTHS}> {{
        {GROUPED}
        z, keys, values = com.microsoft.GroupQueryAttention <num_heads: int = 4, kv_num_heads: int = 2>
            (q, k, v, , , lengths, five)
        y = MatMul (z, W2)
        }}""",
    ),
}

#: Networks in which no head may go, and what the reason names.
STAYING: dict[str, tuple[str, str]] = {
    "as many key heads as query heads in a cache that is seen": (
        "keeps a cache of heads that stay",
        f"""{MICROSOFT} a (float[N,5,6] x, float[N,3,4,4] K, float[N,3,4,4] V)
        => (float[N,5,2] y, float[N,3,9,4] keys, float[N,3,9,4] values)
        <float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2> {{
        {PROJECTED}
        z, keys, values = com.microsoft.MultiHeadAttention <num_heads: int = 3> (q, k, v, , , , K, V)
        y = MatMul (z, W2)
        }}""",
    ),
    "a cache that is an output of fused Attention": (
        "keeps a cache of heads that stay",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y, float[2,N,3,5,4] present)
        <float[6,36] W1, float[36] B, float[12,2] W2> {{
        z, present = com.microsoft.Attention <num_heads: int = 3> (x, W1, B)
        y = MatMul (z, W2)
        }}""",
    ),
    "packed queries, keys and values": (
        "splits or merges it",
        f"""{MICROSOFT} a (float[N,5,6] x) => (float[N,5,2] y) <float[6,36] W1, int64[5] cut = {{0, 0, 3, 3, 4}},
        float[12,2] W2> {{
        m = MatMul (x, W1)
        q = Reshape (m, cut)
        z = com.microsoft.MultiHeadAttention <num_heads: int = 3> (q)
        y = MatMul (z, W2)
        }}""",
    ),
}


def queries_of(original: onnx.ModelProto) -> list[tuple[int, int]]:
    """Units and blocks of the group that W1 belongs to, if it may shrink."""
    units = laws.units_of(original)[1]
    return [(group.count, group.block_count) for group in units.groups if "W1" in group.tensors]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_heads_go_exactly(name: str, kind: str) -> None:
    expected, operator, text = CASES[name]
    original = parse_sample(text)
    assert queries_of(original) == [expected], laws.units_of(original)[1].locked
    exact = (laws.law_masked_equals_shrunk, laws.law_masked_differs_only_in_zeros)
    for case in laws.hold(original, *exact, kinds=[kind], seeds=range(2)):
        node = next(node for node in to_proto(case.shrunk).graph.node if node.op_type == operator.split(".")[-1])
        assert len(node.output) == len(next(n for n in original.graph.node if n.op_type == node.op_type).output)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fault", [shifted, untied, not_rewritten], ids=lambda fault: fault.__name__)
def test_a_fault_is_found(name: str, fault: Fault) -> None:
    _, operator, text = CASES[name]
    original = parse_sample(text)
    if fault is not_rewritten and "by heads" in name:
        return  # with a wrong number of heads the runtime writes beyond its memory
    expected = laws.units_of(original)[1].count
    domain, _, plain = operator.rpartition(".")
    if fault is not_rewritten and domain:
        return  # likewise: the numbers of heads are read off the file elsewhere
    plant(fault, plain, domain=domain)
    assert caught(original, expected=expected)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1].startswith("com.microsoft")])
def test_the_numbers_of_heads_follow(name: str) -> None:
    """Read off the file: with a wrong number the runtime may write beyond its memory."""
    (count, blocks), operator, text = CASES[name]
    original = parse_sample(text)
    model, units = laws.units_of(original)
    keep = random_keep(units, seed=0, kind="one goes")
    (group,) = [group for group in units.groups if "W1" in group.tensors]
    left = int(keep[group.start : group.start + count].sum())
    assert left < count or blocks > 1

    def heads(graph: onnx.GraphProto) -> tuple[int, int]:
        node = next(node for node in graph.node if node.op_type == operator.rpartition(".")[2])
        found = {attribute.name: attribute.i for attribute in node.attribute}
        return found["num_heads"], found.get("kv_num_heads", 0)

    before = heads(original.graph)
    after = heads(to_proto(laws.prune(original, model, units, keep).shrunk).graph)
    assert after[0] == before[0] * left // count
    assert after[1] == (before[1] if blocks > 1 else before[1] * left // count)


@pytest.mark.parametrize("name", STAYING)
def test_heads_that_show_stay_and_the_reason_says_why(name: str) -> None:
    reason, text = STAYING[name]
    _, units = laws.units_of(parse_sample(text))
    assert not [group for group in units.groups if "W1" in group.tensors]
    assert any(reason in group.reason for group in units.locked if "W1" in group.tensors)
