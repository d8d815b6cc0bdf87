"""Quantised networks: scales and zero points per channel go with their channels."""

from onnxadmm.rules.convolution import constant_weight, convolve, rewrite_groups
from onnxadmm.rules.elementwise import broadcast
from onnxadmm.rules.products import contract
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Operand, Visit


def _grid(visit: Visit, data: Operand, axis: Axis, index: int) -> Axis:
    """Tie a scale or zero point with one entry per channel to the channels; a single one says nothing."""
    if not visit.has(index):
        return axis
    grid = visit.operand(index)
    if grid.rank > 1:
        raise LockNodeError("quantises in blocks")
    if grid.rank == 1 and grid.shape[0] > 1:
        return visit.tie(axis, grid.axes[0], "quantises channels that stay")
    return axis


@rule("QuantizeLinear", note="ties channels to scales and zero points per channel")
@rule("DequantizeLinear", keeps_zero=True, note="ties channels to scales and zero points per channel")
def quantise(visit: Visit) -> None:
    data = visit.operand(0)
    axes = list(data.axes)
    if data.rank and any(visit.operand(index).axes for index in (1, 2) if visit.has(index)):
        axis = visit.axis_attribute("axis", 1, data.rank)
        for index in (1, 2):
            axes[axis] = _grid(visit, data, axes[axis], index)
    if visit.node.op_type == "DequantizeLinear" and data.constant and visit.has(2):
        visit.facts.zero_points[data.name] = visit.operand(2).name
    visit.give(axes)


@rule("DynamicQuantizeLinear", note="takes its scale from all positions, which locks")
def quantise_dynamically(visit: Visit) -> None:
    data = visit.operand(0)
    for axis in data.axes:
        visit.lock(axis, "takes its scale from all of it")
    visit.give([None] * data.rank)
    for result in (1, 2):
        visit.give([], result=result)


@rule("QLinearConv", rewrite=rewrite_groups, note="as Conv, with scales and zero points per filter")
def quantised_convolution(visit: Visit) -> None:
    """x, scale, zero point, weight, scale, zero point, result scale, zero point, bias."""
    weight = constant_weight(visit, 3)
    written = weight.axes[0]
    for index in (4, 5, 8):
        written = _grid(visit, weight, written, index)
    visit.facts.zero_points[weight.name] = visit.operand(5).name
    visit.give(convolve(visit, visit.operand(0), weight, written))


def _product(visit: Visit, *, second: int, points: tuple[int, int], columns: tuple[int, ...]) -> None:
    """A quantised matrix product: operands 0 and ``second``, with one entry per column in ``columns``."""
    left, right = visit.operand(0), visit.operand(second)
    if left.rank < 2 or right.rank != 2:
        raise LockNodeError("multiplies operands of other ranks than matrices")
    inner = contract(visit, left, left.rank - 1, right, 0)
    written = right.axes[1]
    for index in columns:
        written = _grid(visit, right, written, index)
    for operand, point in ((left, points[0]), (right, points[1])):
        if operand.constant and visit.has(point):
            visit.facts.zero_points[operand.name] = visit.operand(point).name
    shape = visit.result_shape()
    result = [*left.axes[:-1], written]
    visit.give(result)
    samples = visit.samples(shape, visit.node.outputs[0].name)
    visit.multiply_accumulates([samples, *shape[1:], left.shape[-1]], [*result, inner])


@rule("QLinearMatMul", note="as MatMul, with scales and zero points per column")
def quantised_product(visit: Visit) -> None:
    """a, scale, zero point, b, scale, zero point, result scale, zero point."""
    _product(visit, second=3, points=(2, 5), columns=(4, 5))


@rule("MatMulInteger", note="as MatMul, with zero points per column")
def integer_product(visit: Visit) -> None:
    """a, b, zero point of a, zero point of b."""
    _product(visit, second=1, points=(2, 3), columns=(3,))


@rule("QLinearAdd", "QLinearMul", domain="com.microsoft", note="ties the axes that meet")
def quantised_arithmetic(visit: Visit) -> None:
    """a, scale, zero point, b, scale, zero point, result scale, zero point."""
    visit.give(broadcast(visit, [visit.operand(0), visit.operand(3)], visit.result_shape()))


@rule("QLinearSigmoid", "QLinearLeakyRelu", domain="com.microsoft", note="works position by position")
def quantised_activation(visit: Visit) -> None:
    visit.give(visit.operand(0).axes)


@rule("QLinearGlobalAveragePool", "QLinearAveragePool", domain="com.microsoft", note="pools every channel by itself")
def quantised_pool(visit: Visit) -> None:
    if visit.integer("channels_last", 0):
        raise LockNodeError("has its channels last")
    data = visit.operand(0)
    visit.lock_others(data, (0, 1), "slides over it")
    visit.give([data.axes[0], data.axes[1], *([None] * (data.rank - 2))])


@rule("DynamicQuantizeMatMul", domain="com.microsoft", note="takes its scale from all positions, which locks the input")
def dynamic_product(visit: Visit) -> None:
    """a (float), b, scale of b, zero point of b, bias."""
    left, right = visit.operand(0), visit.operand(1)
    if right.rank != 2:
        raise LockNodeError("multiplies operands of other ranks than matrices")
    for axis in left.axes:
        visit.lock(axis, "takes its scale from all of it")
    visit.lock(right.axes[0], "reads features that stay")
    written = right.axes[1]
    for index in (2, 3):
        written = _grid(visit, right, written, index)
    if visit.has(4):
        written = visit.tie(written, visit.operand(4).axes[0])
    visit.give([None] * (left.rank - 1) + [written])
