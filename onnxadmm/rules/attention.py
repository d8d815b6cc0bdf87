"""Attention as one operator: a unit is a head, with its query, key, value and output."""

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Operand, Visit

_MICROSOFT = "com.microsoft"
_NOTE = "heads go together; key heads keep their ratio to query heads"


def _heads(visit: Visit, axis: Axis, count: int) -> Axis:
    """Tie all positions of each head along a merged axis ``[heads * size]``; return one label per head."""
    if axis is None or count == 1:
        visit.lock(axis, "has a single head")
        return None
    rows = axis.reshape(count, -1)  # [heads, size]
    visit.tie(np.repeat(rows[:, :1], rows.shape[1], axis=1), rows)
    return rows[:, 0]


def _tie_heads(visit: Visit, query: Axis, key: Axis, heads: int, key_heads: int) -> Axis:
    """Tie every key head to the query heads that share it, so that their ratio stays; one key head serves any."""
    if key_heads == 1:
        visit.lock(key, "has a single head")
        return query
    return visit.tie(query, None if key is None else key.repeat(heads // key_heads), "has heads that stay")


def _attend(visit: Visit, operands: tuple[Operand, Operand, Operand], heads: int, key_heads: int) -> Axis:
    """State what attention ties and its MACs; give its result, and return one label per query head.

    Args:
        visit: the node.
        operands: query, key and value, each ``[B, heads, T, size]`` or ``[B, T, heads * size]``.
        heads: number of query heads.
        key_heads: number of key and value heads, which divides it.
    """
    if heads < 1 or key_heads < 1 or heads % key_heads:
        raise LockNodeError("does not say how many heads it has")
    query, key, value = operands
    found: list[Axis] = []
    for operand, count in ((query, heads), (key, key_heads), (value, key_heads)):
        flat = operand.rank == 3
        visit.lock(operand.axes[0], "takes it as the batch")
        visit.lock(operand.axes[1 if flat else 2], "mixes along it")
        if not flat:
            visit.lock(operand.axes[3], "contracts two activations")
            visit.head(operand.axes[1])
        found.append(_heads(visit, operand.axes[2], count) if flat else operand.axes[1])
    kept = found[0]
    for other in found[1:]:
        kept = _tie_heads(visit, kept, other, heads, key_heads)
    size = value.shape[-1] if value.rank == 4 else value.shape[2] // key_heads
    if query.rank == 3:
        visit.give([None, None, None if kept is None else kept.repeat(size)])
    else:
        visit.give([None, kept, None, None])
    tokens, others = query.shape[1 if query.rank == 3 else 2], key.shape[1 if key.rank == 3 else 2]
    inner = query.shape[-1] // (heads if query.rank == 3 else 1)
    visit.multiply_accumulates([tokens * others * (inner + size), heads], [None, kept])
    return kept


def _tie_mask(visit: Visit, index: int, heads: Axis) -> None:
    """Tie a mask or bias ``[..., heads, T, S]`` on the scores to the heads, where it has one for each."""
    if not visit.has(index):
        return
    mask = visit.operand(index)
    visit.lock_others(mask, [mask.rank - 3], "is added to scores that stay")
    if mask.rank > 2 and mask.shape[-3] > 1:
        visit.tie(heads, mask.axes[-3], "has a mask for heads that stay")


def _refuse(visit: Visit, first: int, what: str) -> None:
    """Lock the node when an operand from ``first`` on, or a result behind the first one, is there."""
    if any(visit.has(index) for index in range(first, visit.operand_count)):
        raise LockNodeError(what)
    if any(output.name for output in visit.node.outputs[1:]):
        raise LockNodeError(what)


def _rewrite_attention(edit: Edit) -> None:
    """Flat operands name their heads in attributes."""
    for index, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        _recount(edit, index, name)


def _recount(edit: Edit, index: int, name: str) -> None:
    """Write down how many heads an operand ``[B, T, heads * size]`` still has."""
    operand = edit.operand_name(index)
    heads = edit.integer(name, 0)
    if heads and len(edit.shape(operand)) == 3:
        edit.set_integer(name, edit.size(operand, 2) // (edit.shape(operand)[2] // heads))


@rule("Attention", rewrite=_rewrite_attention, note=_NOTE)
def attention(visit: Visit) -> None:
    """Q, K, V as ``[B, heads, T, size]`` or ``[B, T, heads * size]``, mask."""
    _refuse(visit, 4, "keeps a cache of keys and values, or returns its scores")
    query, key, value = visit.operand(0), visit.operand(1), visit.operand(2)
    flat = query.rank == 3
    heads = visit.integer("q_num_heads", 0) if flat else query.shape[1]
    key_heads = visit.integer("kv_num_heads", 0) if flat else key.shape[1]
    _tie_mask(visit, 3, _attend(visit, (query, key, value), heads, key_heads))


def _rewrite_multi_head(edit: Edit) -> None:
    _recount(edit, 0, "num_heads")


@rule("MultiHeadAttention", domain=_MICROSOFT, rewrite=_rewrite_multi_head, note="heads go together")
def multi_head_attention(visit: Visit) -> None:
    """Q, K, V, bias ``[q + k + v]``, key mask ``[B, S]``, bias on scores; packed operands and caches lock."""
    _refuse(visit, 6, "keeps a cache of keys and values, or returns its scores")
    if not (visit.has(1) and visit.has(2)):
        raise LockNodeError("has its operands packed")
    query, key, value = visit.operand(0), visit.operand(1), visit.operand(2)
    if query.rank != 3 or key.rank != 3 or value.rank != 3:
        raise LockNodeError("has its operands packed")
    heads = visit.integer("num_heads", 0)
    kept = _attend(visit, (query, key, value), heads, heads)
    if visit.has(3):
        bias = visit.operand(3)
        found = [operand.axes[2] for operand in (query, key, value)]
        whole = [axis for axis in found if axis is not None]
        visit.tie(np.concatenate(whole) if len(whole) == len(found) else None, bias.axes[0], "has heads that stay")
    _tie_mask(visit, 5, kept)


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


@rule("Attention", domain=_MICROSOFT, rewrite=_rewrite_fused_attention, note="heads go together")
def fused_attention(visit: Visit) -> None:
    """X ``[B, T, C]``, weight ``[C, q + k + v]``, bias ``[q + k + v]``, mask -> ``[B, T, v]``."""
    _refuse(visit, 4, "has a cache, a bias on its scores, or returns what it caches")
    if not visit.is_constant(1):
        raise LockNodeError("has computed weights")
    data, weight = visit.operand(0), visit.operand(1)
    heads = visit.integer("num_heads", 1)
    parts = visit.integers("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3
    visit.lock(data.axes[0], "takes it as the batch")
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


def _rewrite_rotary(edit: Edit) -> None:
    _recount(edit, 0, "num_heads")


@rule("RotaryEmbedding", rewrite=_rewrite_rotary, note="turns pairs of positions of every head, which stay whole")
@rule(
    "RotaryEmbedding", domain=_MICROSOFT, rewrite=_rewrite_rotary,
    note="turns pairs of positions of every head, which stay whole",
)  # fmt: skip
def rotary_embedding(visit: Visit) -> None:
    """X as ``[B, heads, T, size]`` or ``[B, T, heads * size]``; tables and places, which stay."""
    data = visit.operand(0)
    if data.rank == 4:
        visit.lock(data.axes[3], "turns pairs of it")
        visit.lock(data.axes[2], "turns it by its position")
        visit.head(data.axes[1])
        visit.give([data.axes[0], data.axes[1], None, None])
        return
    heads = visit.integer("num_heads", 0)
    if data.rank != 3 or not heads:
        raise LockNodeError("reads heads from a merged axis and does not say how many")
    visit.lock(data.axes[1], "turns it by its position")
    kept = _heads(visit, data.axes[2], heads)
    visit.give([data.axes[0], None, None if kept is None else data.axes[2]])
