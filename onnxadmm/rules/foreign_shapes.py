"""Shapes behind operators that onnx's inference does not know: com.microsoft, and those that onnxruntime adds."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from onnxadmm.operators.call import Call, Result

_POOL_VERSION = 11


def skip_normalization(call: Call) -> Sequence[Result]:
    """The result, mean and deviation (float), and the sum before normalisation."""
    lengths = call.lengths(0)
    statistic = (TensorProto.FLOAT, (*lengths[:-1], 1))
    return [(call.dtype(0), lengths), statistic, statistic, (call.dtype(0), lengths)]


def normalization(call: Call) -> Sequence[Result]:
    """The result, mean and inverse deviation."""
    lengths = call.lengths(0)
    axis = call.attributes.get("axis", -1) % len(lengths)
    statistic = (TensorProto.FLOAT, (*lengths[:axis], *([1] * (len(lengths) - axis))))
    return [(call.dtype(0), lengths), statistic, statistic]


def _transposed(lengths: tuple[int, ...], swap: int) -> tuple[int, ...]:
    return (*lengths[:-2], lengths[-1], lengths[-2]) if swap and len(lengths) > 1 else lengths


def _matmul(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    if min(len(first), len(second)) < 2 or first[-1] != second[-2]:
        raise LookupError("the operands are no matrices that fit together")
    return (*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1])


def fused_product(call: Call) -> Sequence[Result]:
    if call.attributes.get("transBatchA", 0) or call.attributes.get("transBatchB", 0):
        raise LookupError("moves its batch axes")
    first = _transposed(call.lengths(0), call.attributes.get("transA", 0))
    second = _transposed(call.lengths(1), call.attributes.get("transB", 0))
    return [(call.dtype(0), _matmul(first, second))]


def float_product(call: Call) -> Sequence[Result]:
    return [(TensorProto.FLOAT, _matmul(call.lengths(0), call.lengths(1)))]


def quantised_gemm(call: Call) -> Sequence[Result]:
    first = _transposed(call.lengths(0), call.attributes.get("transA", 0))
    second = _transposed(call.lengths(3), call.attributes.get("transB", 0))
    dtype = call.dtype(8) or TensorProto.FLOAT  # without a grid for the result it is not quantised
    return [(dtype, _matmul(first, second))]


def quantised_concat(call: Call) -> Sequence[Result]:
    """Scale and zero point of the result, then tensor, scale and zero point of each operand."""
    parts = [call.lengths(index) for index in range(2, call.count, 3)]
    axis = call.attributes["axis"] % len(parts[0])
    joined = list(parts[0])
    joined[axis] = sum(part[axis] for part in parts)
    return [(call.dtype(2), tuple(joined))]


def quantised_recurrence(call: Call) -> Sequence[Result]:
    """X ``[T, B, I]``, W ``[D, I, 4 H]`` -> Y ``[T, D, B, H]``, and the last states ``[D, B, H]``."""
    steps, batch, _ = call.lengths(0)
    directions, _, gates = call.lengths(1)
    state = (call.dtype(0), (directions, batch, gates // 4))
    return [(call.dtype(0), (steps, directions, batch, gates // 4)), state, state]


def global_pool(call: Call) -> Sequence[Result]:
    lengths = call.lengths(0)
    ones = (1,) * (len(lengths) - 2)
    last = call.attributes.get("channels_last", 0)
    return [(call.dtype(0), (lengths[0], *ones, lengths[-1]) if last else (*lengths[:2], *ones))]


def pool(call: Call) -> Sequence[Result]:
    """As AveragePool, whose inference takes no integers."""
    if call.attributes.get("channels_last", 0):
        raise LookupError("has its channels last")
    plain = helper.make_node("AveragePool", ["x"], ["y"])
    plain.attribute.extend(attribute for attribute in call.node.attribute if attribute.name != "channels_last")
    given = helper.make_tensor_type_proto(TensorProto.FLOAT, call.lengths(0))
    schema = onnx.defs.get_schema("AveragePool", _POOL_VERSION)
    found = shape_inference.infer_node_outputs(schema, plain, {"x": given})["y"]
    return [(call.dtype(0), tuple(int(dim.dim_value) for dim in found.tensor_type.shape.dim))]


def attention(call: Call) -> Sequence[Result]:
    """X ``[B, T, C]``, weight ``[C, q + k + v]`` -> ``[B, T, v]``, cache ``[2, B, heads, T, size]``."""
    batch, tokens, _ = call.lengths(0)
    sizes = call.attributes.get("qkv_hidden_sizes") or [call.lengths(1)[1] // 3] * 3
    heads = call.attributes["num_heads"]
    earlier = call.lengths(4)[3] if call.dtype(4) else 0
    cache = (call.dtype(0), (2, batch, heads, earlier + tokens, int(sizes[1]) // heads))
    return [(call.dtype(0), (batch, tokens, int(sizes[2]))), cache]


def multi_head_attention(call: Call) -> Sequence[Result]:
    """Q ``[B, T, q]``, V ``[B, S, v]`` or ``[B, heads, S, size]`` -> ``[B, T, v]``; all packed in Q is left unknown.

    Cached keys and values are ``[B, heads, S, size]``.
    """
    query, key, value = call.lengths(0), call.lengths(1), call.lengths(2)
    if len(query) != 3:
        raise LookupError("query, key and value are packed")
    width = value[2] if len(value) == 3 else value[1] * value[3]
    results: list[Result] = [(call.dtype(0), (*query[:2], width))]
    heads = call.attributes["num_heads"]
    earlier = call.lengths(6)[2] if call.dtype(6) else 0
    for flat in (key, value):
        if len(flat) == 3:
            results.append((call.dtype(0), (flat[0], heads, earlier + flat[1], flat[2] // heads)))
    return results


def grouped_query_attention(call: Call) -> Sequence[Result]:
    """Q ``[B, T, heads * size]``, or query, key and value heads beside each other -> ``[B, T, heads * size]``.

    Cached keys and values are ``[B, key heads, T, size]``; behind earlier ones their length is decided while running.
    """
    batch, tokens, width = call.lengths(0)
    heads, key_heads = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    size = width // (heads if call.dtype(1) else heads + 2 * key_heads)
    results: list[Result] = [(call.dtype(0), (batch, tokens, heads * size))]
    if not call.dtype(3):
        results += [(call.dtype(0), (batch, key_heads, tokens, size))] * 2
    return results


def embed(call: Call) -> Sequence[Result]:
    """Ids ``[B, T]``, table ``[words, H]`` -> ``[B, T, H]``, mask index ``[B]``, the sum before normalisation."""
    ids, table = call.lengths(0), call.lengths(2)
    full = (call.dtype(2), (*ids, table[1]))
    return [full, (TensorProto.INT32, ids[:1]), full]


def blocked_product(call: Call) -> Sequence[Result]:
    return [(call.dtype(0), (*call.lengths(0)[:-1], call.attributes["N"]))]


def quantised(call: Call) -> Sequence[Result]:
    return [(call.dtype(2) or TensorProto.UINT8, call.lengths(0))]


def quantised_where(call: Call) -> Sequence[Result]:
    """Condition, then tensor, scale and zero point of either side."""
    return [(call.dtype(1), np.broadcast_shapes(call.lengths(0), call.lengths(1), call.lengths(4)))]


def dequantised(call: Call) -> Sequence[Result]:
    """The shape of what is quantised, in the type of its scale."""
    return [(call.dtype(1), call.lengths(0))]
