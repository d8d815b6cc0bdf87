"""Blocks with attention: in one operator, or in many as exporters write it. All take tokens ``[N, T, D]``."""

import numpy as np
from onnx import TensorProto

from tests.graphs import weighted
from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import MICROSOFT, Kind, Port, block

_TOKENS: tuple[Kind, ...] = ("tokens",)
_HEADS_FIRST = [0, 2, 1, 3]


def _sizes(b: GraphBuilder) -> tuple[int, int]:
    """Number of heads, and their size."""
    return b.choices.pick((2, 3, 4)), b.choices.pick((2, 4))


def _cut(b: GraphBuilder, x: Value, heads: int, size: int) -> Value:
    """[N, T, h*d] -> [N, T, h, d]."""
    forms = [(0, 0, heads, size), (0, 0, heads, -1), (-1, x.shape[1], heads, size), (0, x.shape[1], -1, size)]
    return b.one("Reshape", [x, b.integers(*b.choices.pick(forms))])


def _scores(b: GraphBuilder, query: Value, key: Value, size: int, heads: int) -> Value:
    """Softmax of scaled products, a mask or a bias per head added now and then: [N, h, T, T]."""
    scores = b.one("MatMul", [query, key])
    if b.choices.chance(70):
        scores = b.one("Div", [scores, b.scalar(float(np.sqrt(size)))])
    bias = b.choices.pick(("none", "mask", "heads"))
    if bias == "mask":
        causal = np.triu(np.full(scores.shape[-2:], -9.0, np.float32), 1)
        scores = b.one("Add", [scores, b.initializer(causal, "causal")])
    elif bias == "heads":
        scores = b.one("Add", [scores, b.bias([heads, *scores.shape[-2:]], "relative")])
    return b.one("Softmax", [scores], {"axis": -1})


def _merge(b: GraphBuilder, context: Value, features: int) -> Value:
    """[N, h, T, d] -> [N, T, features] through the output layer."""
    y = b.one("Transpose", [context], {"perm": _HEADS_FIRST})
    wide = y.shape[2] * y.shape[3]
    flat = b.one("Reshape", [y, b.integers(*b.choices.pick(((0, 0, -1), (0, 0, wide), (-1, y.shape[1], wide))))])
    return weighted.matmul(b, flat, features)


@block("attention by three layers", "MatMul", "Softmax", on=_TOKENS)
def separate(b: GraphBuilder, x: Port) -> Value:
    heads, size = _sizes(b)
    query, key, value = (_cut(b, weighted.matmul(b, x, heads * size), heads, size) for _ in range(3))
    query = b.one("Transpose", [query], {"perm": _HEADS_FIRST})
    key = b.one("Transpose", [key], {"perm": [0, 2, 3, 1]})
    value = b.one("Transpose", [value], {"perm": _HEADS_FIRST})
    y = _merge(b, b.one("MatMul", [_scores(b, query, key, size, heads), value]), x.channels)
    return b.one("Add", [x, y]) if b.choices.chance(60) else y


@block("attention by one layer, cut to five axes", "MatMul", "Softmax", "Gather", on=_TOKENS)
def packed(b: GraphBuilder, x: Port) -> Value:
    heads, size = _sizes(b)
    y = weighted.matmul(b, x, 3 * heads * size)
    y = b.one("Reshape", [y, b.integers(*b.choices.pick(((0, 0, 3, heads, size), (-1, x.shape[1], 3, heads, size))))])
    y = b.one("Transpose", [y], {"perm": [2, 0, 3, 1, 4]})
    parts = [b.one("Gather", [y, b.initializer(np.asarray(i, np.int64), "part")], {"axis": 0}) for i in range(3)]
    key = b.one("Transpose", [parts[1]], {"perm": [0, 1, 3, 2]})
    return _merge(b, b.one("MatMul", [_scores(b, parts[0], key, size, heads), parts[2]]), x.channels)


@block("attention by one layer, split", "MatMul", "Softmax", "Split", on=_TOKENS)
def divided(b: GraphBuilder, x: Port) -> Value:
    heads, size = _sizes(b)
    wide = heads * size
    y = weighted.matmul(b, x, 3 * wide)
    parts = [
        _cut(b, part, heads, size) for part in b.node("Split", [y, b.integers(*[wide] * 3)], {"axis": 2}, outputs=3)
    ]
    query, value = (b.one("Transpose", [parts[i]], {"perm": _HEADS_FIRST}) for i in (0, 2))
    key = b.one("Transpose", [parts[1]], {"perm": [0, 2, 3, 1]})
    return _merge(b, b.one("MatMul", [_scores(b, query, key, size, heads), value]), x.channels)


@block("attention with shared key heads", "MatMul", "Softmax", "Expand", "Unsqueeze", on=_TOKENS)
def grouped(b: GraphBuilder, x: Port) -> Value:
    """Grouped queries: key and value heads repeated by Unsqueeze, Expand and Reshape."""
    key_heads, times, size = b.choices.pick((1, 2, 3)), 2, b.choices.pick((2, 4))
    heads, count = key_heads * times, x.shape[1]
    query = b.one("Transpose", [_cut(b, weighted.matmul(b, x, heads * size), heads, size)], {"perm": _HEADS_FIRST})
    repeated = []
    for _ in range(2):
        y = _cut(b, weighted.matmul(b, x, key_heads * size), key_heads, size)
        y = b.one("Unsqueeze", [b.one("Transpose", [y], {"perm": _HEADS_FIRST}), b.integers(2)])
        y = b.one("Expand", [y, b.integers(1, 1, times, 1, 1)])
        repeated.append(b.one("Reshape", [y, b.integers(-1, heads, count, size)]))
    key = b.one("Transpose", [repeated[0]], {"perm": [0, 1, 3, 2]})
    return _merge(b, b.one("MatMul", [_scores(b, query, key, size, heads), repeated[1]]), x.channels)


@block("attention with heads in the batch", "MatMul", "Softmax", on=_TOKENS)
def merged_batch(b: GraphBuilder, x: Port) -> Value:
    """[N, T, h*d] -> [N*h, T, d], as torch's own attention is exported."""
    heads, size = _sizes(b)
    count = x.shape[1]
    parts = []
    for _ in range(3):
        y = b.one("Transpose", [_cut(b, weighted.matmul(b, x, heads * size), heads, size)], {"perm": _HEADS_FIRST})
        parts.append(b.one("Reshape", [y, b.integers(-1, count, size)]))
    scores = b.one("MatMul", [parts[0], b.one("Transpose", [parts[1]], {"perm": [0, 2, 1]})])
    y = b.one("MatMul", [b.one("Softmax", [scores], {"axis": -1}), parts[2]])
    return _merge(b, b.one("Reshape", [y, b.integers(-1, heads, count, size)]), x.channels)


@block("attention across inputs", "MatMul", "Softmax", "Concat", on=_TOKENS)
def crossed(b: GraphBuilder, x: Port) -> Value:
    """Queries from x, keys and values from x and a second input of the graph."""
    heads, size = _sizes(b)
    memory = b.one("Concat", [x, weighted.matmul(b, b.input([2, 3]), x.channels)], {"axis": 1})
    b.features.add("two inputs")
    query = b.one("Transpose", [_cut(b, weighted.matmul(b, x, heads * size), heads, size)], {"perm": _HEADS_FIRST})
    key, value = (_cut(b, weighted.matmul(b, memory, heads * size), heads, size) for _ in range(2))
    key = b.one("Transpose", [key], {"perm": [0, 2, 3, 1]})
    value = b.one("Transpose", [value], {"perm": _HEADS_FIRST})
    return _merge(b, b.one("MatMul", [_scores(b, query, key, size, heads), value]), x.channels)


@block("rotary attention written out", "MatMul", "Softmax", "Slice", "Neg", "Concat", on=_TOKENS)
def rotary(b: GraphBuilder, x: Port) -> Value:
    heads, size, count = b.choices.pick((2, 3)), 4, x.shape[1]
    cosine, sine = b.bias([count, size], "cosine"), b.bias([count, size], "sine")
    turned = []
    for _ in range(2):
        y = b.one("Transpose", [_cut(b, weighted.matmul(b, x, heads * size), heads, size)], {"perm": _HEADS_FIRST})
        first = b.one("Slice", [y, b.integers(0), b.integers(2), b.integers(3)])
        second = b.one("Slice", [y, b.integers(2), b.integers(99), b.integers(3)])
        swapped = b.one("Concat", [b.one("Neg", [second]), first], {"axis": -1})
        turned.append(b.one("Add", [b.one("Mul", [y, cosine]), b.one("Mul", [swapped, sine])]))
    key = b.one("Transpose", [turned[1]], {"perm": [0, 1, 3, 2]})
    value = b.one("Transpose", [_cut(b, weighted.matmul(b, x, heads * size), heads, size)], {"perm": _HEADS_FIRST})
    return _merge(b, b.one("MatMul", [_scores(b, turned[0], key, size, heads), value]), x.channels)


@block("Attention", "Attention", on=_TOKENS, opsets=(23, 24))
def attention(b: GraphBuilder, x: Port) -> Value:
    """The operator of opset 23, flat operands, heads in attributes; key heads may be fewer."""
    key_heads, times, size = b.choices.pick((1, 2, 3)), b.choices.pick((1, 2)), b.choices.pick((2, 4))
    heads = key_heads * times
    query = weighted.matmul(b, x, heads * size)
    key, value = weighted.matmul(b, x, key_heads * size), weighted.matmul(b, x, key_heads * size)
    attributes: dict[str, Attribute] = {"q_num_heads": heads, "kv_num_heads": key_heads}
    if b.choices.chance(40):
        attributes["is_causal"] = 1
    operands = [query, key, value]
    if b.choices.chance(40):
        operands.append(b.bias([heads, x.shape[1], x.shape[1]], "mask"))
    (y,) = b.stated("Attention", operands, [((*x.shape[:2], heads * size), x.dtype)], attributes=attributes)
    return weighted.matmul(b, y, x.channels)


@block("RotaryEmbedding", "RotaryEmbedding", on=_TOKENS, opsets=(23, 24))
def rotary_embedding(b: GraphBuilder, x: Port) -> Value:
    heads, size, count = b.choices.pick((2, 3)), 4, x.shape[1]
    y = weighted.matmul(b, x, heads * size)
    tables = [b.bias([1, count, size // 2], name) for name in ("cosine", "sine")]
    if not b.symbolic_batch:
        tables = [b.bias([x.shape[0], count, size // 2], name) for name in ("cosine", "sine")]
        operands = [y, *tables]
    else:
        flat = [b.bias([count, size // 2], name) for name in ("cosine", "sine")]
        places = b.one("Cast", [b.one("Mul", [_one_number(b, x), b.scalar(0.0)])], {"to": 7})
        operands = [y, *flat, places]
    (y,) = b.stated("RotaryEmbedding", operands, [(y.shape, y.dtype)], attributes={"num_heads": heads})
    return weighted.matmul(b, y, x.channels)


def _one_number(b: GraphBuilder, x: Port) -> Value:
    """[N, T]: one number per token."""
    return b.one("Squeeze", [weighted.matmul(b, x, 1), b.integers(2)])


@block("fused attention", "com.microsoft.Attention", on=_TOKENS)
def fused(b: GraphBuilder, x: Port) -> Value:
    heads, size = _sizes(b)
    wide = heads * size
    weight = b.initializer(b.random.normal(0, 0.5, (x.channels, 3 * wide)).astype(np.float32), "packed")
    attributes: dict[str, Attribute] = {"num_heads": heads}
    if b.choices.chance(40):
        attributes["unidirectional"] = 1
    operands = [x, weight, b.initializer(b.away_from_zero([3 * wide]), "packed_bias")]
    y = b.foreign(
        MICROSOFT, "Attention", operands, (*x.shape[:2], wide), declared=b.choices.chance(50), attributes=attributes
    )
    return weighted.matmul(b, y, x.channels)


@block("MultiHeadAttention", "com.microsoft.MultiHeadAttention", on=_TOKENS)
def multi_head(b: GraphBuilder, x: Port) -> Value:
    heads, size = _sizes(b)
    wide = heads * size
    operands = [weighted.matmul(b, x, wide) for _ in range(3)]
    if b.choices.chance(50):
        operands.append(b.initializer(b.away_from_zero([3 * wide]), "packed_bias"))
    y = b.foreign(
        MICROSOFT, "MultiHeadAttention", operands, (*x.shape[:2], wide), declared=False, attributes={"num_heads": heads}
    )
    return weighted.matmul(b, y, x.channels)


@block("fused rotary embedding", "com.microsoft.RotaryEmbedding", on=_TOKENS)
def fused_rotary(b: GraphBuilder, x: Port) -> Value:
    heads, size = b.choices.pick((2, 3)), 4
    y = weighted.matmul(b, x, heads * size)
    tables = [b.bias([max(8, x.shape[1]), size // 2], name) for name in ("cosine", "sine")]
    operands = [y, b.initializer(np.zeros(1, np.int64), "start"), *tables]
    y = b.foreign(MICROSOFT, "RotaryEmbedding", operands, y.shape, declared=True, attributes={"num_heads": heads})
    return weighted.matmul(b, y, x.channels)


@block("GroupQueryAttention", "com.microsoft.GroupQueryAttention", on=_TOKENS, opsets=(15, 21))
def group_query(b: GraphBuilder, x: Port) -> Value:
    """Key heads that several query heads share, a cache that starts empty and is not read, lengths from the batch."""
    key_heads, times, size, count = b.choices.pick((1, 2, 3)), b.choices.pick((1, 2)), 8, x.shape[1]
    wide = key_heads * times * size
    operands: list[Value | None] = [weighted.matmul(b, x, wide)]
    operands += [weighted.matmul(b, x, key_heads * size) for _ in range(2)]
    batch = b.one("Shape", [x], {"start": 0, "end": 1})
    (lengths,) = b.stated("Expand", [b.integers(count - 1), batch], [((x.shape[0],), TensorProto.INT64)])
    lengths = b.one("Cast", [lengths], {"to": TensorProto.INT32})
    operands += [None, None, lengths, b.initializer(np.asarray(count, np.int32), "count")]
    cache = ((x.shape[0], key_heads, count, size), x.dtype)
    attributes: dict[str, Attribute] = {"num_heads": key_heads * times, "kv_num_heads": key_heads}
    results = [((*x.shape[:2], wide), x.dtype), cache, cache]
    y = b.stated("GroupQueryAttention", operands, results, domain=MICROSOFT, attributes=attributes)[0]
    return weighted.matmul(b, y, x.channels)
