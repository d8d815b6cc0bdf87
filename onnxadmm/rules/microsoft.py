"""Operators of the domain com.microsoft that onnxruntime's optimiser and some exporters leave."""

from onnx import TensorProto

from onnxadmm.operators.call import shape_of
from onnxadmm.operators.table import Lookup, declare
from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.convolution import constant_weight, convolve, rewrite_groups
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_DOMAIN = "com.microsoft"

# Without rules, these lock what they touch; shapes go on behind them.
declare("MatMulNBits", domain=_DOMAIN, shape=foreign_shapes.blocked_product)
declare("QLinearWhere", domain=_DOMAIN, shape=foreign_shapes.quantised_where)
declare("Binarizer", "Imputer", "Scaler", domain="ai.onnx.ml", shape=shape_of(0))
declare("Normalizer", domain="ai.onnx.ml", shape=shape_of(0, dtype=TensorProto.FLOAT))


@rule(
    "Gelu", "QuickGelu", domain=_DOMAIN, elementwise=True, shape=shape_of(0), gradient="engine",
    note="works position by position",
)  # fmt: skip
def activation(visit: Visit) -> None:
    visit.set_result(visit.operand(0).axes)


@rule(
    "BiasGelu", "FastGelu", domain=_DOMAIN, elementwise=True, shape=shape_of(0), gradient="engine",
    note="ties the bias, then works position by position",
)  # fmt: skip
def biased_activation(visit: Visit) -> None:
    data = visit.operand(0)
    operands = [data, visit.operand(1)] if visit.has_operand(1) else [data]
    visit.set_result(visit.tie_broadcast(operands, data.shape))


@rule(
    "FusedConv", domain=_DOMAIN, rewrite=rewrite_groups, shaped_like=("Conv", (0, 1, 2)),
    note="as Conv, with a sum and an activation behind it",
)  # fmt: skip
def fused_convolution(visit: Visit) -> None:
    """x, weight, bias, sum."""
    weight = constant_weight(visit, 1)
    written = weight.axes[0]
    if visit.has_operand(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    axes = convolve(visit, visit.operand(0), weight, written)
    if visit.has_operand(3):
        shape = visit.result_shape()
        axes = visit.tie_broadcast([Operand.stand_in(shape, axes), visit.operand(3)], shape)
    visit.set_result(axes)


@rule("FusedMatMul", domain=_DOMAIN, shape=foreign_shapes.fused_product, note="as MatMul, with transposed operands")
def fused_product(visit: Visit) -> None:
    first, second = visit.operand(0), visit.operand(1)
    if visit.integer("transBatchA", 0) or visit.integer("transBatchB", 0) or first.rank < 2 or second.rank < 2:
        raise LockNodeError("moves its batch axes")
    first_inner = first.rank - 2 if visit.integer("transA", 0) else first.rank - 1
    second_inner = second.rank - 1 if visit.integer("transB", 0) else second.rank - 2
    inner = visit.contract(first, first_inner, second, second_inner)
    shape = visit.result_shape()
    stacks = [operand.without_last_axes(2) for operand in (first, second)]
    batch = visit.tie_broadcast(stacks, shape[:-2])
    if not first.constant and not second.constant:
        for axis in batch:
            visit.mark_head(axis)
    outer = (first.axes[2 * first.rank - 3 - first_inner], second.axes[2 * second.rank - 3 - second_inner])
    result: list[Axis] = [*batch, *outer]
    visit.set_result(result)
    samples = visit.rows_per_sample()
    visit.add_macs([samples, *shape[1:], first.shape[first_inner]], [*result, inner])


@rule(
    "EmbedLayerNormalization", domain=_DOMAIN, normalises=True, shape=foreign_shapes.embed,
    lookups=(Lookup(0, 2, "rows"), Lookup(1, 4, "rows")), note="mixes along the embedding, which locks",
)  # fmt: skip
def embed_layer_normalization(visit: Visit) -> None:
    for operand in visit.operands():
        visit.lock_operand(operand, "mixes along it")
    for result in range(visit.result_count):
        if visit.has_result(result):
            visit.set_result([None] * len(visit.result_shape(result)), index=result)
