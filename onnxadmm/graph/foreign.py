"""Shapes behind operators that onnx's inference does not know: com.microsoft, and scalers of ai.onnx.ml."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from onnxadmm.graph.nodes import attributes


class Call:
    """One node: types and lengths of its operands, and its attributes."""

    def __init__(self, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> None:
        self.node = node
        self.attributes: Mapping[str, Any] = attributes(node)
        self._given = [types.get(name) if name else None for name in node.input]

    @property
    def count(self) -> int:
        """Number of operands, absent ones in the middle included."""
        return len(self._given)

    def dtype(self, index: int) -> int:
        """Return the element type of an operand, 0 when it is absent or not known."""
        given = self._given[index] if index < len(self._given) else None
        return 0 if given is None else int(given.tensor_type.elem_type)

    def lengths(self, index: int) -> tuple[int, ...]:
        """Return the lengths of an operand's axes.

        Raises:
            LookupError: it is absent, or a length is not known.
        """
        given = self._given[index] if index < len(self._given) else None
        if given is None or not given.tensor_type.HasField("shape"):
            raise LookupError(f"the shape of operand {index} is not known")
        dims = given.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise LookupError(f"a length of operand {index} is not known")
        return tuple(int(dim.dim_value) for dim in dims)


_Result = tuple[int, tuple[int, ...]]
_Function = Callable[[Call], Sequence[_Result]]


def _as(index: int, dtype: int | None = None) -> _Function:
    """The shape of an operand, and its type if no other is given."""
    return lambda call: [(call.dtype(index) if dtype is None else dtype, call.lengths(index))]


def _broadcast(*operands: int) -> _Function:
    return lambda call: [(call.dtype(operands[0]), np.broadcast_shapes(*(call.lengths(index) for index in operands)))]


def _skip_normalization(call: Call) -> Sequence[_Result]:
    """The result, mean and deviation (float), and the sum before normalisation."""
    lengths = call.lengths(0)
    statistic = (TensorProto.FLOAT, (*lengths[:-1], 1))
    return [(call.dtype(0), lengths), statistic, statistic, (call.dtype(0), lengths)]


def _normalization(call: Call) -> Sequence[_Result]:
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


def _fused_product(call: Call) -> Sequence[_Result]:
    if call.attributes.get("transBatchA", 0) or call.attributes.get("transBatchB", 0):
        raise LookupError("moves its batch axes")
    first = _transposed(call.lengths(0), call.attributes.get("transA", 0))
    second = _transposed(call.lengths(1), call.attributes.get("transB", 0))
    return [(call.dtype(0), _matmul(first, second))]


def _float_product(call: Call) -> Sequence[_Result]:
    return [(TensorProto.FLOAT, _matmul(call.lengths(0), call.lengths(1)))]


def _quantised_gemm(call: Call) -> Sequence[_Result]:
    first = _transposed(call.lengths(0), call.attributes.get("transA", 0))
    second = _transposed(call.lengths(3), call.attributes.get("transB", 0))
    dtype = call.dtype(8) or TensorProto.FLOAT  # without a grid for the result it is not quantised
    return [(dtype, _matmul(first, second))]


def _quantised_concat(call: Call) -> Sequence[_Result]:
    """Scale and zero point of the result, then tensor, scale and zero point of each operand."""
    parts = [call.lengths(index) for index in range(2, call.count, 3)]
    axis = call.attributes["axis"] % len(parts[0])
    joined = list(parts[0])
    joined[axis] = sum(part[axis] for part in parts)
    return [(call.dtype(2), tuple(joined))]


def _global_pool(call: Call) -> Sequence[_Result]:
    lengths = call.lengths(0)
    ones = (1,) * (len(lengths) - 2)
    last = call.attributes.get("channels_last", 0)
    return [(call.dtype(0), (lengths[0], *ones, lengths[-1]) if last else (*lengths[:2], *ones))]


def _pool(call: Call) -> Sequence[_Result]:
    """As AveragePool, whose inference takes no integers."""
    if call.attributes.get("channels_last", 0):
        raise LookupError("has its channels last")
    plain = helper.make_node("AveragePool", ["x"], ["y"])
    plain.attribute.extend(attribute for attribute in call.node.attribute if attribute.name != "channels_last")
    given = helper.make_tensor_type_proto(TensorProto.FLOAT, call.lengths(0))
    schema = onnx.defs.get_schema("AveragePool", _POOL_VERSION)
    found = shape_inference.infer_node_outputs(schema, plain, {"x": given})["y"]
    return [(call.dtype(0), tuple(int(dim.dim_value) for dim in found.tensor_type.shape.dim))]


def _attention(call: Call) -> Sequence[_Result]:
    """X ``[B, T, C]``, weight ``[C, q + k + v]`` -> ``[B, T, v]``, cache ``[2, B, heads, T, size]``."""
    batch, tokens, _ = call.lengths(0)
    sizes = call.attributes.get("qkv_hidden_sizes") or [call.lengths(1)[1] // 3] * 3
    heads = call.attributes["num_heads"]
    earlier = call.lengths(4)[3] if call.dtype(4) else 0
    cache = (call.dtype(0), (2, batch, heads, earlier + tokens, int(sizes[1]) // heads))
    return [(call.dtype(0), (batch, tokens, int(sizes[2]))), cache]


def _multi_head_attention(call: Call) -> Sequence[_Result]:
    """Q ``[B, T, q]``, V ``[B, S, v]`` or ``[B, heads, S, size]`` -> ``[B, T, v]``; all packed in Q is left unknown.

    Cached keys and values are ``[B, heads, S, size]``.
    """
    query, key, value = call.lengths(0), call.lengths(1), call.lengths(2)
    if len(query) != 3:
        raise LookupError("query, key and value are packed")
    width = value[2] if len(value) == 3 else value[1] * value[3]
    results: list[_Result] = [(call.dtype(0), (*query[:2], width))]
    heads = call.attributes["num_heads"]
    earlier = call.lengths(6)[2] if call.dtype(6) else 0
    for flat in (key, value):
        if len(flat) == 3:
            results.append((call.dtype(0), (flat[0], heads, earlier + flat[1], flat[2] // heads)))
    return results


def _grouped_query_attention(call: Call) -> Sequence[_Result]:
    """Q ``[B, T, heads * size]``, or query, key and value heads beside each other -> ``[B, T, heads * size]``.

    Cached keys and values are ``[B, key heads, T, size]``; behind earlier ones their length is decided while running.
    """
    batch, tokens, width = call.lengths(0)
    heads, key_heads = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    size = width // (heads if call.dtype(1) else heads + 2 * key_heads)
    results: list[_Result] = [(call.dtype(0), (batch, tokens, heads * size))]
    if not call.dtype(3):
        results += [(call.dtype(0), (batch, key_heads, tokens, size))] * 2
    return results


def _embed(call: Call) -> Sequence[_Result]:
    """Ids ``[B, T]``, table ``[words, H]`` -> ``[B, T, H]``, mask index ``[B]``, the sum before normalisation."""
    ids, table = call.lengths(0), call.lengths(2)
    full = (call.dtype(2), (*ids, table[1]))
    return [full, (TensorProto.INT32, ids[:1]), full]


def _blocked_product(call: Call) -> Sequence[_Result]:
    return [(call.dtype(0), (*call.lengths(0)[:-1], call.attributes["N"]))]


def _quantised(call: Call) -> Sequence[_Result]:
    return [(call.dtype(2) or TensorProto.UINT8, call.lengths(0))]


_MICROSOFT: dict[str, _Function] = {
    "Attention": _attention,
    "BiasGelu": _as(0),
    "DequantizeLinear": lambda call: [(call.dtype(1), call.lengths(0))],
    "DynamicQuantizeMatMul": _float_product,
    "EmbedLayerNormalization": _embed,
    "FastGelu": _as(0),
    "FusedMatMul": _fused_product,
    "Gelu": _as(0),
    "GroupQueryAttention": _grouped_query_attention,
    "MatMulIntegerToFloat": _float_product,
    "MatMulNBits": _blocked_product,
    "MultiHeadAttention": _multi_head_attention,
    "QGemm": _quantised_gemm,
    "QLinearAdd": _broadcast(0, 3),
    "QLinearAveragePool": _pool,
    "QLinearConcat": _quantised_concat,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearLeakyRelu": _as(0),
    "QLinearMul": _broadcast(0, 3),
    "QLinearSigmoid": _as(0),
    "QLinearSoftmax": _as(0),
    "QLinearWhere": lambda call: [
        (call.dtype(1), np.broadcast_shapes(call.lengths(0), call.lengths(1), call.lengths(4)))
    ],
    "QuantizeLinear": _quantised,
    "QuickGelu": _as(0),
    "RotaryEmbedding": _as(0),
    "SkipLayerNormalization": _skip_normalization,
    "SkipSimplifiedLayerNormalization": _skip_normalization,
}
_LEARNING: dict[str, _Function] = {
    "Binarizer": _as(0),
    "Imputer": _as(0),
    "Normalizer": _as(0, TensorProto.FLOAT),
    "Scaler": _as(0, TensorProto.FLOAT),
}
# onnxruntime knows these of the default domain in every operator set, onnx in none or in later ones.
_DEFAULT: dict[str, _Function] = {
    "LayerNormalization": _normalization,
    "SimplifiedLayerNormalization": _normalization,
}
_DOMAINS = {"com.microsoft": _MICROSOFT, "ai.onnx.ml": _LEARNING, "": _DEFAULT}

# Operators that compute the shape as one of the default domain does, with these operands.
_ALIKE: dict[str, tuple[str, tuple[int, ...]]] = {
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
}
_OWN_ATTRIBUTES = "activation"
_POOL_VERSION = 11


def is_foreign(domain: str, operator: str) -> bool:
    """Tell whether ``foreign_types`` knows an operator."""
    return operator in _DOMAINS.get(domain, ())


def foreign_types(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
    """Return the types of the results by name; empty where the operands are not known well enough."""
    try:
        results = _DOMAINS[node.domain][node.op_type](Call(node, types))
    except (LookupError, ValueError, ZeroDivisionError):
        return {}
    return {
        name: helper.make_tensor_type_proto(dtype, lengths)
        for name, (dtype, lengths) in zip(node.output, results, strict=False)
        if name and dtype
    }


def standard_twin(node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return a node of the default domain whose result has the same shape, None where there is none."""
    if node.domain != "com.microsoft" or node.op_type not in _ALIKE:
        return None
    operator, operands = _ALIKE[node.op_type]
    twin = helper.make_node(operator, [node.input[index] for index in operands if index < len(node.input)], node.output)
    twin.attribute.extend(attribute for attribute in node.attribute if not attribute.name.startswith(_OWN_ATTRIBUTES))
    return twin
