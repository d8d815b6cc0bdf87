"""Quantised networks: scales and zero points per channel go with their channels."""

from math import prod

from onnxadmm.operators.call import broadcast_of, shape_of
from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.convolution import constant_weight, convolve, rewrite_groups, slide
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.joining import join
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_MICROSOFT = "com.microsoft"
_TIES_SCALES = "ties channels to scales and zero points per channel"


def _tie_scale(visit: Visit, axis: Axis, index: int) -> Axis:
    """Tie a scale or zero point with one entry per channel to the channels; a single one says nothing."""
    if not visit.has_operand(index):
        return axis
    scale = visit.operand(index)
    visit.mark_scale(scale)
    if prod(scale.shape) == 1:
        return axis
    if scale.rank != 1:
        raise LockNodeError("quantises in blocks")
    return visit.tie(axis, scale.axes[0], "quantises channels that stay")


@rule("QuantizeLinear", quantises=True, note=_TIES_SCALES)
@rule("QuantizeLinear", domain=_MICROSOFT, quantises=True, shape=foreign_shapes.quantised, note=_TIES_SCALES)
@rule("DequantizeLinear", keeps_zero=True, quantises=True, note=_TIES_SCALES)
@rule(
    "DequantizeLinear", domain=_MICROSOFT, keeps_zero=True, quantises=True, shape=foreign_shapes.dequantised,
    note=_TIES_SCALES,
)  # fmt: skip
def quantise(visit: Visit) -> None:
    """x, scale, zero point; with one entry per channel along ``axis``, which vectors do not need to name."""
    data = visit.operand(0)
    axes = list(data.axes)
    if visit.integer("block_size", 0):
        raise LockNodeError("quantises in blocks")
    axis = visit.axis_attribute("axis", 1, data.rank) if data.rank > 1 else 0
    scales = [visit.operand(index) for index in (1, 2) if visit.has_operand(index)]
    per_channel = any(prod(scale.shape) > 1 for scale in scales)
    if per_channel and axis >= data.rank:
        raise LockNodeError("quantises along an axis that is not there")
    for index in (1, 2):
        along = _tie_scale(visit, axes[axis] if per_channel else None, index)
        if per_channel:
            axes[axis] = along
    if visit.operator == "QuantizeLinear":
        visit.mark_quantised_result(2)
    elif data.constant:
        visit.mark_zero_point(data, 2, axis=axis)
    visit.set_result(axes)


def _take_scale(visit: Visit, data: Operand) -> None:
    """State that the node takes its scale from an operand: the least and the largest number in it, or zero.

    Zero is always in that range, so a position that is zero adds nothing to it, as to a sum.
    """
    for axis in range(data.rank):
        visit.mark_summed(data, axis)


@rule("DynamicQuantizeLinear", quantises=True, note="takes its scale from all positions: a gate hides those that go")
def quantise_dynamically(visit: Visit) -> None:
    data = visit.operand(0)
    _take_scale(visit, data)
    visit.set_result(data.axes)
    for result in (1, 2):
        visit.set_result([], index=result)


@rule(
    "QLinearConv", multiplies_bytes=(3, 5), rewrite=rewrite_groups,
    note="as Conv, with scales and zero points per filter",
)  # fmt: skip
def quantised_convolution(visit: Visit) -> None:
    """x, scale, zero point, weight, scale, zero point, result scale, zero point, bias."""
    weight = constant_weight(visit, 3)
    written = weight.axes[0]
    for index in (4, 5):
        written = _tie_scale(visit, written, index)
    for index in (1, 2, 6, 7):
        _tie_scale(visit, None, index)
    if visit.has_operand(8):
        bias = visit.operand(8)
        written = visit.tie(written, bias.axes[0])
        visit.mark_weight(bias)
    visit.mark_zero_point(weight, 5, axis=0)
    visit.set_result(convolve(visit, visit.operand(0), weight, written))


def _product(
    visit: Visit, *, second: int, points: tuple[int | None, int], columns: tuple[int, ...], single: tuple[int, ...] = ()
) -> Axis:
    """A quantised matrix product: operands 0 and ``second``, zero points at ``points``, other scales of one entry.

    Args:
        visit: the node.
        second: where the second operand stands.
        points: where the zero points of both stand; the first may have none.
        columns: operands that may have one entry per column.
        single: operands of one entry.

    Returns:
        the columns of the result.
    """
    left, right = visit.operand(0), visit.operand(second)
    transposed = visit.integer("transB", 0)
    if visit.integer("transA", 0) or left.rank < 2 or right.rank != 2:
        raise LockNodeError("multiplies operands of other ranks than matrices, or the first one transposed")
    inner = visit.contract(left, left.rank - 1, right, 1 if transposed else 0)
    written = right.axes[0 if transposed else 1]
    for index in columns:
        written = _tie_scale(visit, written, index)
    for index in single:
        _tie_scale(visit, None, index)
    if left.constant:
        visit.mark_zero_point(left, points[0], axis=left.rank - 2)
    if right.constant:
        visit.mark_zero_point(right, points[1], axis=0 if transposed else 1)
    shape = visit.result_shape()
    result = [*left.axes[:-1], written]
    visit.set_result(result)
    samples = visit.rows_per_sample()
    visit.add_macs([samples, *shape[1:], left.shape[-1]], [*result, inner])
    return written


def _add_bias(visit: Visit, index: int, written: Axis) -> None:
    """Tie a bias to the columns of the result."""
    if not visit.has_operand(index):
        return
    shape = visit.result_shape()
    bias = visit.operand(index)
    columns = Operand.stand_in(shape, [*([None] * (len(shape) - 1)), written])
    visit.mark_weight(bias)
    visit.set_result(visit.tie_broadcast([columns, bias], shape))


@rule("QLinearMatMul", multiplies_bytes=(3, 5), note="as MatMul, with scales and zero points per column")
def quantised_product(visit: Visit) -> None:
    """a, scale, zero point, b, scale, zero point, result scale, zero point."""
    _product(visit, second=3, points=(2, 5), columns=(4, 5), single=(1, 2, 6, 7))


@rule("MatMulInteger", multiplies_bytes=(1, 3), note="as MatMul, with zero points per column")
def integer_product(visit: Visit) -> None:
    """a, b, zero point of a, zero point of b."""
    _product(visit, second=1, points=(2, 3), columns=(3,), single=(2,))


@rule(
    "MatMulIntegerToFloat", domain=_MICROSOFT, multiplies_bytes=(1, 5), shape=foreign_shapes.float_product,
    note="as MatMul, with scales and zero points per column",
)  # fmt: skip
def integer_product_to_float(visit: Visit) -> None:
    """a, b, scale of a, scale of b, zero point of a, zero point of b, bias."""
    _add_bias(visit, 6, _product(visit, second=1, points=(4, 5), columns=(3, 5), single=(2, 4)))


@rule(
    "QGemm", domain=_MICROSOFT, multiplies_bytes=(3, 5), shape=foreign_shapes.quantised_gemm,
    note="as Gemm, with scales and zero points per column",
)  # fmt: skip
def quantised_gemm(visit: Visit) -> None:
    """a, scale, zero point, b, scale, zero point, c, result scale, zero point."""
    _add_bias(visit, 6, _product(visit, second=3, points=(2, 5), columns=(4, 5), single=(1, 2, 7, 8)))


@rule(
    "DynamicQuantizeMatMul", domain=_MICROSOFT, multiplies_bytes=(1, 3), shape=foreign_shapes.float_product,
    note="as MatMul; takes its scale from all positions of the input: a gate hides those that go",
)  # fmt: skip
def dynamic_product(visit: Visit) -> None:
    """a (float), b, scale of b, zero point of b, bias."""
    _take_scale(visit, visit.operand(0))
    _add_bias(visit, 4, _product(visit, second=1, points=(None, 3), columns=(2, 3)))


@rule("QLinearAdd", "QLinearMul", domain=_MICROSOFT, shape=broadcast_of(0, 3), note="ties the axes that meet")
def quantised_arithmetic(visit: Visit) -> None:
    """a, scale, zero point, b, scale, zero point, result scale, zero point."""
    for index in (1, 2, 4, 5, 6, 7):
        _tie_scale(visit, None, index)
    visit.set_result(visit.tie_broadcast([visit.operand(0), visit.operand(3)], visit.result_shape()))


@rule(
    "QLinearConcat", domain=_MICROSOFT, shape=foreign_shapes.quantised_concat,
    note="joins the labels of its operands; ties the other axes",
)  # fmt: skip
def quantised_concat(visit: Visit) -> None:
    """Result scale, zero point, then tensor, scale and zero point of each operand."""
    operands = [visit.operand(index) for index in range(2, visit.operand_count, 3)]
    for index in range(visit.operand_count):
        if index < 2 or index % 3 != 2:
            _tie_scale(visit, None, index)
    visit.set_result(join(visit, operands, visit.axis_attribute("axis", 1, operands[0].rank)))


@rule(
    "QLinearSigmoid", "QLinearLeakyRelu", domain=_MICROSOFT, shape=shape_of(0), note="works position by position",
)  # fmt: skip
def quantised_activation(visit: Visit) -> None:
    for index in range(1, visit.operand_count):
        _tie_scale(visit, None, index)
    visit.set_result(visit.operand(0).axes)


@rule(
    "QLinearSoftmax", domain=_MICROSOFT, effect="inexact", shape=shape_of(0), note="mixes along its axis, which locks",
)  # fmt: skip
def quantised_softmax(visit: Visit) -> None:
    """Below opset 13, which an attribute names, the axis and all behind it are one."""
    data = visit.operand(0)
    for index in range(1, visit.operand_count):
        _tie_scale(visit, None, index)
    old = visit.integer("opset", 13) < 13
    axis = visit.axis_attribute("axis", 1 if old else -1, data.rank)
    mixed = range(axis, data.rank) if old else [axis]
    axes = enumerate(data.axes)
    visit.set_result([visit.lock_unless_inexact(axis) if index in mixed else axis for index, axis in axes])


@rule(
    "QLinearGlobalAveragePool", domain=_MICROSOFT, shape=foreign_shapes.global_pool,
    note="pools every channel by itself",
)  # fmt: skip
@rule("QLinearAveragePool", domain=_MICROSOFT, shape=foreign_shapes.pool, note="pools every channel by itself")
def quantised_pool(visit: Visit) -> None:
    if visit.integer("channels_last", 0):
        raise LockNodeError("has its channels last")
    data = visit.operand(0)
    for index in range(1, visit.operand_count):
        _tie_scale(visit, None, index)
    visit.set_result([*data.axes[:2], *slide(visit, data, visit.integers("kernel_shape"))])
