"""Convolution and pooling."""

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit, product
from onnxadmm.rules.zeros import note_zero

_SLIDES = "slides over it"
_FILTERS = "reads input channels, writes filters; groups stay equal"
_POOLS = "pools every channel by itself"


def rewrite_groups(edit: Edit) -> None:
    """A depthwise convolution has as many groups as channels; other groups keep their number."""
    channels = edit.operand_name(0)
    groups = edit.integer("group", 1)
    if groups > 1 and groups == edit.shape(channels)[1]:
        edit.set_integer("group", edit.size(channels, 1))


def constant_weight(visit: Visit, index: int) -> Operand:
    """Return an operand that has to be a weight.

    Raises:
        LockNodeError: it is computed while running.
    """
    if not visit.is_constant(index):
        raise LockNodeError("has a weight that is computed while running")
    return visit.operand(index)


@rule(
    "Conv", rewrite=rewrite_groups, weights=(1,), vectors=(2,), windowed=True, gradient="engine", note=_FILTERS,
)  # fmt: skip
@rule("ConvInteger", rewrite=rewrite_groups, byte_product=(1, 3), note=_FILTERS)
def convolution(visit: Visit) -> None:
    """x ``[N, C, ...]``, weight ``[M, C/groups, ...]``, bias ``[M]`` -> ``[N, M, ...]``."""
    weight = constant_weight(visit, 1)
    written = weight.axes[0]
    if visit.node.op_type == "Conv" and visit.has(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    elif visit.node.op_type == "ConvInteger":
        if visit.has(3) and product(visit.operand(3).shape) > 1:
            written = visit.tie(written, visit.operand(3).axes[0])
        note_zero(visit, weight, 3, 0)
    visit.give(convolve(visit, visit.operand(0), weight, written))


def convolve(visit: Visit, data: Operand, weight: Operand, written: Axis) -> list[Axis]:
    """State what any convolution ties and reads, and its MACs; return the axes of its result.

    Args:
        data: ``[N, C, ...]``.
        weight: ``[M, C/groups, ...]``.
        written: the filters, already tied to whatever else has one entry per filter.
    """
    groups = visit.integer("group", 1)
    filters, channels = weight.shape[0], data.shape[1]
    visit.lock_others(data, (0, 1), _SLIDES)
    visit.whole(weight, range(2, weight.rank))
    read = data.axes[1]
    if groups == 1:
        visit.tie(read, weight.axes[1], "reads channels that stay")
        _register_read(visit, weight)
    elif groups == channels:
        _depthwise(visit, data, weight, filters // groups)
    else:
        if read is None:
            visit.lock(weight.axes[1], "reads channels that stay")
            _register_read(visit, weight)
        else:
            blocks = read.reshape(groups, channels // groups)
            visit.balance(blocks)
            visit.cut_weight_by_blocks(weight, 1, blocks)
        _balance_filters(visit, weight, groups)
    shape = visit.result_shape()
    reading = visit.facts.axes[weight.name][1] if groups < channels else None
    visit.multiply_accumulates(
        [visit.samples(shape, visit.node.outputs[0].name) * product(shape[2:]) * product(weight.shape[2:]), filters,
         weight.shape[1]],
        [None, written, reading],
    )  # fmt: skip
    return [data.axes[0], written, *([None] * (data.rank - 2))]


def _register_read(visit: Visit, weight: Operand) -> None:
    """Say that axis 1 of the weight reads, also where the input stays: it is not a group of its own."""
    axis = weight.axes[1]
    if axis is not None:
        visit.read(weight, 1, axis)


def _depthwise(visit: Visit, data: Operand, weight: Operand, multiplier: int) -> None:
    """Every channel makes ``multiplier`` filters of its own: they go together."""
    read, written = data.axes[1], weight.axes[0]
    if read is not None:
        visit.tie(read.repeat(multiplier), written)
    elif written is not None and multiplier > 1:
        visit.balance(written.reshape(data.shape[1], multiplier))
    else:
        visit.lock(written, "filters channels that stay")


def _balance_filters(visit: Visit, weight: Operand, groups: int) -> None:
    written = weight.axes[0]
    if written is None:
        return
    if weight.shape[0] == groups:
        visit.lock(written, "has one filter per group")
    else:
        visit.balance(written.reshape(groups, -1))


@rule("ConvTranspose", rewrite=rewrite_groups, weights=(1,), vectors=(2,), windowed=True, note=_FILTERS)
def transposed_convolution(visit: Visit) -> None:
    """x ``[N, C, ...]``, weight ``[C, M/groups, ...]``, bias ``[M]`` -> ``[N, M, ...]``."""
    data, weight = visit.operand(0), constant_weight(visit, 1)
    groups = visit.integer("group", 1)
    channels = data.shape[1]
    visit.lock_others(data, (0, 1), _SLIDES)
    visit.whole(weight, range(2, weight.rank))
    read = data.axes[1]
    visit.tie(read, weight.axes[0], "reads channels that stay")
    if groups == 1:
        written = weight.axes[1]
    elif groups == channels and read is not None:
        visit.whole(weight, [1])
        written = read.repeat(weight.shape[1])
    else:
        written = _write_blocks(visit, weight, groups)
        if read is not None:
            visit.balance(read.reshape(groups, channels // groups))
    if weight.axes[0] is not None and (groups < channels or read is None):
        visit.read(weight, 0, weight.axes[0])
    if visit.has(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    visit.give([data.axes[0], written, *([None] * (data.rank - 2))])
    samples = visit.samples(data.shape, data.name)
    writing = visit.facts.axes[weight.name][1] if groups < channels or read is None else None
    visit.multiply_accumulates(
        [samples * product(data.shape[2:]) * product(weight.shape[2:]), channels, weight.shape[1]],
        [None, read, writing],
    )


def _write_blocks(visit: Visit, weight: Operand, groups: int) -> Axis:
    """Return the labels of the filters of a weight ``[C, M/groups, ...]``, equally many of every group."""
    filters = weight.shape[1]
    if filters == 1:
        return visit.fixed(groups, "has one filter per group")
    written = visit.fresh(groups * filters)
    blocks = written.reshape(groups, filters)
    visit.balance(blocks)
    visit.cut_weight_by_blocks(weight, 1, blocks, reads=False)
    return written


@rule("MaxPool", "AveragePool", windowed=True, gradient="engine", note=_POOLS)
@rule("LpPool", windowed=True, note=_POOLS)
@rule("GlobalAveragePool", gradient="engine", note=_POOLS)
@rule("GlobalMaxPool", "GlobalLpPool", note=_POOLS)
def pool(visit: Visit) -> None:
    data = visit.operand(0)
    if len(visit.node.outputs) > 1 and visit.node.outputs[1].uses():
        raise LockNodeError("returns indices that count channels")
    visit.lock_others(data, (0, 1), _SLIDES)
    visit.give([data.axes[0], data.axes[1], *([None] * (data.rank - 2))])


@rule(
    "BatchNormalization", normalises=True, vectors=(1, 2), statistics=(3, 4),
    note="ties the channels to scale, shift, mean and variance",
)  # fmt: skip
def batch_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    if any(output.uses() for output in visit.node.outputs[1:]):
        raise LockNodeError("returns running statistics")
    channels = data.axes[1]
    for index in range(1, 5):
        parameter = visit.operand(index)
        if channels is not None or parameter.axes[0] is not None:
            channels = visit.tie(channels, parameter.axes[0], "normalises channels that stay")
    visit.give([data.axes[0], channels, *data.axes[2:]])
