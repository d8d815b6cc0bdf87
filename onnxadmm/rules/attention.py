"""Attention as one operator: a unit is a head, with its query, key, value and output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from onnxadmm.operators.call import shape_of
from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_MICROSOFT = "com.microsoft"
_NOTE = "heads go together; key heads keep their ratio to query heads, or stay in a cache that shows"


def _heads(visit: Visit, axis: Axis, count: int) -> Axis:
    """Tie all positions of each head along a merged axis ``[heads * size]``; return one label per head."""
    if axis is None or count == 1:
        visit.lock(axis, "has a single head")
        return None
    rows = axis.reshape(count, -1)  # [heads, size]
    visit.tie(np.repeat(rows[:, :1], rows.shape[1], axis=1), rows)
    return rows[:, 0]


@dataclass(frozen=True)
class _Cache:
    """Keys and values of earlier tokens, each ``[B, heads, T, size]``: operands that hold them, results that go on."""

    past: tuple[int, ...] = ()
    present: tuple[int, ...] = ()


def _tie_heads(visit: Visit, query: Axis, others: Sequence[Axis], heads: int, key_heads: int, cache: _Cache) -> Axis:
    """Tie every key and value head to the query heads that share it, so that their ratio stays.

    One key head serves any number of query heads. Where key heads stay, because they meet others that stay or are seen
    from outside in a cache, each keeps equally many query heads.

    Returns:
        one label per query head.
    """
    past = [visit.operand(index).axes[1] for index in cache.past if visit.has_operand(index)]
    shown = any(visit.is_graph_output(index) for index in cache.present)
    why = "keeps a cache of heads that stay" if shown or any(axis is None for axis in past) else "has heads that stay"
    ratio = heads // key_heads
    if query is not None and (key_heads == 1 or shown or any(visit.is_locked(axis) for axis in [*others, *past])):
        for axis in [*others, *past]:
            visit.lock(axis, "has a single head" if key_heads == 1 else why)
        if key_heads > 1 and ratio == 1:
            visit.lock(query, why)
            return None
        if key_heads > 1:
            visit.balance(query.reshape(key_heads, ratio))
        return query
    kept = query
    for axis in [*others, *past]:
        kept = visit.tie(kept, None if axis is None else axis.repeat(ratio), why)
    return kept


def _set_cache(visit: Visit, cache: _Cache, key: Axis) -> None:
    """State the axes of what a cache takes and gives: heads are its second axis, all others stay."""
    for index in cache.past:
        if visit.has_operand(index):
            visit.lock_operand(visit.operand(index), "keeps it in a cache", except_axes=(1,))
    for index in cache.present:
        visit.set_unsized_result([None, key, None, None], index=index)


def _attend(
    visit: Visit, operands: tuple[Operand, Operand, Operand], heads: int, key_heads: int, cache: _Cache
) -> Axis:
    """State what attention ties and its MACs; set its result, and return one label per query head.

    Args:
        visit: the node.
        operands: query, key and value, each ``[B, heads, T, size]`` or ``[B, T, heads * size]``.
        heads: number of query heads.
        key_heads: number of key and value heads, which divides it.
        cache: where earlier keys and values come from and go to.
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
            visit.mark_head(operand.axes[1])
        found.append(_heads(visit, operand.axes[2], count) if flat else operand.axes[1])
    kept = _tie_heads(visit, found[0], found[1:], heads, key_heads, cache)
    _set_cache(visit, cache, found[1])
    size = value.shape[-1] if value.rank == 4 else value.shape[2] // key_heads
    if query.rank == 3:
        visit.set_result([None, None, None if kept is None else kept.repeat(size)])
    else:
        visit.set_result([None, kept, None, None])
    tokens, others = query.shape[1 if query.rank == 3 else 2], key.shape[1 if key.rank == 3 else 2]
    others += sum(visit.operand(index).shape[2] for index in cache.past[:1] if visit.has_operand(index))
    inner = query.shape[-1] // (heads if query.rank == 3 else 1)
    visit.add_macs([tokens * others * (inner + size), heads], [None, kept])
    return kept


def _tie_mask(visit: Visit, index: int, heads: Axis) -> None:
    """Tie a mask or bias ``[..., heads, T, S]`` on the scores to the heads, where it has one for each."""
    if not visit.has_operand(index):
        return
    mask = visit.operand(index)
    visit.lock_operand(mask, "is added to scores that stay", except_axes=[mask.rank - 3])
    if mask.rank > 2 and mask.shape[-3] > 1:
        visit.tie(heads, mask.axes[-3], "has a mask for heads that stay")


def _refuse(visit: Visit, operand: int, result: int, what: str) -> None:
    """Lock the node when an operand from ``operand`` on, or a result from ``result`` on, is there."""
    if any(visit.has_operand(index) for index in range(operand, visit.operand_count)):
        raise LockNodeError(what)
    if any(visit.has_result(index) for index in range(result, visit.result_count)):
        raise LockNodeError(what)


def _rewrite_attention(edit: Edit) -> None:
    """Flat operands name their heads in attributes."""
    for index, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        _recount(edit, index, name)


def _recount(edit: Edit, index: int, name: str) -> None:
    """Write down how many heads an operand ``[B, T, heads * size]`` still has."""
    operand = edit.operand(index)
    heads = edit.integer(name, 0)
    if heads and operand.rank == 3:
        edit.set_integer(name, operand.size(2) // (operand.shape[2] // heads))


@rule("Attention", rewrite=_rewrite_attention, note=_NOTE)
def attention(visit: Visit) -> None:
    """Q, K, V as ``[B, heads, T, size]`` or ``[B, T, heads * size]``, mask, cached keys and values, their lengths."""
    _refuse(visit, 7, 3, "returns its scores")
    if visit.has_operand(6):
        visit.ignore_operand(6)
    query, key, value = visit.operand(0), visit.operand(1), visit.operand(2)
    flat = query.rank == 3
    heads = visit.integer("q_num_heads", 0) if flat else query.shape[1]
    key_heads = visit.integer("kv_num_heads", 0) if flat else key.shape[1]
    cache = _Cache(past=(4, 5), present=(1, 2))
    _tie_mask(visit, 3, _attend(visit, (query, key, value), heads, key_heads, cache))


def _rewrite_multi_head(edit: Edit) -> None:
    _recount(edit, 0, "num_heads")


@rule(
    "MultiHeadAttention", domain=_MICROSOFT, rewrite=_rewrite_multi_head, shape=foreign_shapes.multi_head_attention,
    note="heads go together",
)  # fmt: skip
def multi_head_attention(visit: Visit) -> None:
    """Q, K, V, bias ``[q + k + v]``, key mask ``[B, S]``, bias on scores, cached keys and values; packed operands lock.

    Keys and values are ``[B, S, heads * size]``, or ``[B, heads, S, size]`` where they come from a cache as they are.
    """
    _refuse(visit, 8, 3, "keeps a cache in place, or returns its scores")
    if not (visit.has_operand(1) and visit.has_operand(2)):
        raise LockNodeError("has its operands packed")
    query, key, value = visit.operand(0), visit.operand(1), visit.operand(2)
    if query.rank != 3 or key.rank not in (3, 4) or value.rank != key.rank:
        raise LockNodeError("has its operands packed")
    heads = visit.integer("num_heads", 0)
    kept = _attend(visit, (query, key, value), heads, heads, _Cache(past=(6, 7), present=(1, 2)))
    if visit.has_operand(3):
        bias = visit.operand(3)
        if bias.shape[0] != query.shape[2] + (key.shape[2] + value.shape[2] if key.rank == 3 else 0):
            raise LockNodeError("has a bias that does not fit its operands")
        found = [operand.axes[2] for operand in (query, key, value) if operand.rank == 3]
        whole = [axis for axis in found if axis is not None]
        visit.tie(np.concatenate(whole) if len(whole) == len(found) else None, bias.axes[0], "has heads that stay")
    _tie_mask(visit, 5, kept)


def _rewrite_grouped_query(edit: Edit) -> None:
    """Queries may go while keys stay; packed operands name both by the columns that are left."""
    heads, key_heads = edit.integer("num_heads", 1), edit.integer("kv_num_heads", 1)
    result = edit.result()
    size = result.shape[2] // heads
    edit.set_integer("num_heads", result.size(2) // size)
    if edit.has_operand(1):
        _recount(edit, 1, "kv_num_heads")
        return
    columns = edit.operand(0).positions(2)
    if columns is not None:
        keys = (columns >= heads * size) & (columns < (heads + key_heads) * size)
        edit.set_integer("kv_num_heads", int(np.count_nonzero(keys)) // size)


@rule(
    "GroupQueryAttention", domain=_MICROSOFT, rewrite=_rewrite_grouped_query,
    shape=foreign_shapes.grouped_query_attention, note=_NOTE,
)  # fmt: skip
def grouped_query_attention(visit: Visit) -> None:
    """Q, K, V as ``[B, T, heads * size]`` or all in Q, cached keys and values, lengths, rotary tables, places, bias."""
    _refuse(visit, 11, 3, "has a sink, scales of its cache, or returns its scores")
    heads, key_heads = visit.integer("num_heads", 0), visit.integer("kv_num_heads", 0)
    if heads < 1 or key_heads < 1:
        raise LockNodeError("does not say how many heads it has")
    query = visit.operand(0)
    if visit.has_operand(1) != visit.has_operand(2) or query.rank != 3:
        raise LockNodeError("has its operands packed")
    if visit.has_operand(1):
        operands = query, visit.operand(1), visit.operand(2)
    else:
        operands = _unpacked(query, heads, key_heads)
    for index in (7, 8):
        if visit.has_operand(index):
            visit.lock_operand(visit.operand(index), "turns positions by it")
    cache = _Cache(past=(3, 4), present=(1, 2))
    _tie_mask(visit, 10, _attend(visit, operands, heads, key_heads, cache))


def _unpacked(packed: Operand, heads: int, key_heads: int) -> tuple[Operand, Operand, Operand]:
    """Return query, key and value ``[B, T, heads * size]`` that stand beside each other in one operand."""
    count = heads + 2 * key_heads
    if packed.shape[2] % count:
        raise LockNodeError("does not say how many heads it has")
    size = packed.shape[2] // count
    cuts, parts = (0, heads, heads + key_heads, count), []
    for start, stop in pairwise(cuts):
        axis = None if packed.axes[2] is None else packed.axes[2][start * size : stop * size]
        shape = (*packed.shape[:2], (stop - start) * size)
        parts.append(replace(packed, shape=shape, axes=(*packed.axes[:2], axis)))
    return parts[0], parts[1], parts[2]


def _rewrite_fused_attention(edit: Edit) -> None:
    result = edit.result()
    kept = result.positions(2)
    if kept is None:
        return
    heads = edit.integer("num_heads", 1)
    size = result.shape[2] // heads
    edit.set_integer("num_heads", int(kept.size) // size)
    sizes = edit.integers("qkv_hidden_sizes")
    if sizes:
        edit.set_integers("qkv_hidden_sizes", [part // heads * (int(kept.size) // size) for part in sizes])


@rule(
    "Attention", domain=_MICROSOFT, rewrite=_rewrite_fused_attention, shape=foreign_shapes.attention,
    note="heads go together",
)  # fmt: skip
def fused_attention(visit: Visit) -> None:
    """X ``[B, T, C]``, weight ``[C, q + k + v]``, bias ``[q + k + v]``, mask, cache, bias on scores -> ``[B, T, v]``.

    The cache is ``[2, B, heads, T, size]``: keys and values in one.
    """
    _refuse(visit, 6, 2, "keeps a cache in place, or returns its scores")
    if not visit.is_constant(1):
        raise LockNodeError("has computed weights")
    data, weight = visit.operand(0), visit.operand(1)
    heads = visit.integer("num_heads", 1)
    parts = visit.integers("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3
    visit.lock(data.axes[0], "takes it as the batch")
    visit.lock(data.axes[1], "mixes along it")
    reading = visit.tie(data.axes[2], weight.axes[0], "reads features that stay")
    visit.mark_reader(weight, 0)
    written = weight.axes[1]
    if visit.has_operand(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    if written is None:
        raise LockNodeError("has a single column")
    query, key, value = (_heads(visit, part, heads) for part in np.split(written, np.cumsum(parts)[:2]))
    others, earlier = [key, value], 0
    if visit.has_operand(4):
        past = visit.operand(4)
        visit.lock_operand(past, "keeps it in a cache", except_axes=(2,))
        others.append(past.axes[2])
        earlier = past.shape[3]
    kept = _tie_heads(visit, query, others, heads, heads, _Cache(present=(1,)))
    visit.set_unsized_result([None, None, kept, None, None], index=1)
    size = parts[2] // heads
    visit.set_result([None, None, None if kept is None else kept.repeat(size)])
    _tie_mask(visit, 5, kept)
    tokens = data.shape[1]
    visit.add_macs([tokens, weight.shape[1], data.shape[2]], [None, written, reading])
    visit.add_macs([tokens * (tokens + earlier) * (parts[0] // heads + size), heads], [None, kept])


def _rewrite_rotary(edit: Edit) -> None:
    _recount(edit, 0, "num_heads")


@rule("RotaryEmbedding", rewrite=_rewrite_rotary, note="turns pairs of positions of every head, which stay whole")
@rule(
    "RotaryEmbedding", domain=_MICROSOFT, rewrite=_rewrite_rotary, shape=shape_of(0),
    note="turns pairs of positions of every head, which stay whole",
)  # fmt: skip
def rotary_embedding(visit: Visit) -> None:
    """X as ``[B, heads, T, size]`` or ``[B, T, heads * size]``; tables and places, which stay."""
    data = visit.operand(0)
    if data.rank == 4:
        visit.lock(data.axes[3], "turns pairs of it")
        visit.lock(data.axes[2], "turns it by its position")
        visit.mark_head(data.axes[1])
        visit.set_result([data.axes[0], data.axes[1], None, None])
        return
    heads = visit.integer("num_heads", 0)
    if data.rank != 3 or not heads:
        raise LockNodeError("reads heads from a merged axis and does not say how many")
    visit.lock(data.axes[1], "turns it by its position")
    kept = _heads(visit, data.axes[2], heads)
    visit.set_result([data.axes[0], None, None if kept is None else data.axes[2]])
