"""Attention as one operator: a unit is a head, with its query, key, value and output."""

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Visit


def _heads(visit: Visit, axis: Axis, count: int) -> Axis:
    """Tie all positions of each head along a merged axis ``[heads * size]``; return one label per head."""
    if axis is None or count == 1:
        visit.lock(axis, "has a single head")
        return None
    rows = axis.reshape(count, -1)  # [heads, size]
    visit.tie(np.repeat(rows[:, :1], rows.shape[1], axis=1), rows)
    return rows[:, 0]


def _tie_heads(visit: Visit, query: Axis, key: Axis, heads: int, key_heads: int) -> Axis:
    """Tie every key head to the query heads that share it, so that their ratio stays."""
    if query is None and key is None:
        return None
    shared = heads // max(1, key_heads)
    spread = None if key is None else key.repeat(shared)
    if query is None and key_heads == 1:
        return None
    return visit.tie(query, spread, "has heads that stay")


def _rewrite_attention(edit: Edit) -> None:
    """Flat operands name their heads in attributes."""
    for index, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        operand = edit.operand_name(index)
        heads = edit.integer(name, 0)
        if heads and len(edit.shape(operand)) == 3:
            size = edit.shape(operand)[2] // heads
            edit.set_integer(name, edit.size(operand, 2) // size)


@rule("Attention", rewrite=_rewrite_attention, note="heads go together; key heads keep their ratio to query heads")
def attention(visit: Visit) -> None:
    """Q, K, V as ``[B, heads, T, size]`` or ``[B, T, heads * size]``."""
    query, key, value = (visit.operand(index) for index in range(3))
    if any(visit.has(index) for index in range(4, visit.operand_count)) or len(visit.node.outputs) > 1:
        raise LockNodeError("keeps a cache of keys and values")
    flat = query.rank == 3
    heads = visit.integer("q_num_heads", 0) if flat else query.shape[1]
    key_heads = visit.integer("kv_num_heads", 0) if flat else key.shape[1]
    if not heads or not key_heads:
        raise LockNodeError("does not say how many heads it has")
    for operand in (query, key, value):
        visit.lock(operand.axes[0], "takes it as the batch")
        visit.lock(operand.axes[1 if flat else 2], "mixes along it")
        if not flat:
            visit.lock(operand.axes[3], "contracts two activations")
    axis = 2 if flat else 1
    if flat:
        query_heads = _heads(visit, query.axes[axis], heads)
        both = [_heads(visit, operand.axes[axis], key_heads) for operand in (key, value)]
    else:
        query_heads, both = query.axes[axis], [operand.axes[axis] for operand in (key, value)]
    kept = query_heads
    for other in both:
        kept = _tie_heads(visit, kept, other, heads, key_heads)
    if visit.has(3):
        mask = visit.operand(3)
        if mask.rank == 4 and mask.shape[1] > 1:
            kept = visit.tie(kept, mask.axes[1], "has a mask for heads that stay")
    size = value.shape[-1] if not flat else value.shape[2] // key_heads
    if flat:
        visit.give([None, None, None if kept is None else kept.repeat(size)])
    else:
        visit.give([None, kept, None, None])
    tokens, others = query.shape[1 if flat else 2], key.shape[1 if flat else 2]
    inner = query.shape[-1] // (heads if flat else 1)
    visit.multiply_accumulates([tokens * others * (inner + size), heads], [None, kept])


def _rewrite_fused_attention(edit: Edit) -> None:
    result = edit.result_name()
    kept = edit.positions(result, 2)
    if kept is None:
        return
    heads = edit.integer("num_heads", 1)
    size = edit.shape(result)[2] // heads
    edit.set_integer("num_heads", int(kept.size) // size)
    sizes = edit.integers("qkv_hidden_sizes")
    if sizes:
        edit.set_integers("qkv_hidden_sizes", [part // heads * (int(kept.size) // size) for part in sizes])


@rule("Attention", domain="com.microsoft", rewrite=_rewrite_fused_attention, note="heads go together")
def fused_attention(visit: Visit) -> None:
    """X ``[B, T, C]``, weight ``[C, q + k + v]``, bias ``[q + k + v]``, mask -> ``[B, T, v]``."""
    data = visit.operand(0)
    if not visit.is_constant(1) or any(visit.has(index) for index in range(4, visit.operand_count)):
        raise LockNodeError("has computed weights, a cache or a bias on its scores")
    weight = visit.operand(1)
    heads = visit.integer("num_heads", 1)
    parts = visit.integers("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3
    visit.lock(data.axes[1], "mixes along it")
    reading = visit.tie(data.axes[2], weight.axes[0], "reads features that stay")
    if weight.axes[0] is not None:
        visit.read(weight, 0, weight.axes[0])
    written = weight.axes[1]
    if visit.has(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    if written is None:
        raise LockNodeError("has a single column")
    query, key, value = np.split(written, np.cumsum(parts)[:2])
    kept = _heads(visit, query, heads)
    for other in (key, value):
        kept = _tie_heads(visit, kept, _heads(visit, other, heads), heads, heads)
    size = parts[2] // heads
    visit.give([None, None, None if kept is None else kept.repeat(size)])
    tokens = data.shape[1]
    visit.multiply_accumulates([tokens, weight.shape[1], data.shape[2]], [None, written, reading])
    visit.multiply_accumulates([tokens * tokens * (parts[0] // heads + size), heads], [None, kept])


@rule("RotaryEmbedding", note="turns pairs of positions of every head, which stay whole")
@rule("RotaryEmbedding", domain="com.microsoft", note="turns pairs of positions of every head, which stay whole")
def rotary_embedding(visit: Visit) -> None:
    data = visit.operand(0)
    if data.rank != 4:
        raise LockNodeError("reads heads from a merged axis")
    visit.lock(data.axes[3], "turns pairs of it")
    visit.lock(data.axes[2], "turns it by its position")
    visit.give([data.axes[0], data.axes[1], None, None])
