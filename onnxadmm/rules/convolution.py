"""Convolution and pooling."""

from collections.abc import Sequence
from math import prod

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_FILTERS = "reads input channels, writes filters; groups stay equal"
_POOLS = "pools every channel by itself"


def rewrite_groups(edit: Edit) -> None:
    """A depthwise convolution has as many groups as channels; other groups keep their number."""
    channels = edit.operand(0)
    groups = edit.integer("group", 1)
    if groups > 1 and groups == channels.shape[1]:
        edit.set_integer("group", channels.size(1))


def constant_weight(visit: Visit, index: int) -> Operand:
    """Return an operand that has to be a weight ``[M, C/groups, ...]``, or ``[C, M/groups, ...]`` of a ConvTranspose.

    Raises:
        LockNodeError: it is computed while running. What it multiplies is stated before: it costs all the same.
    """
    weight = visit.operand(index)
    if not weight.constant:
        data = visit.operand(0) if visit.operator == "ConvTranspose" else None
        shape = visit.result_shape() if data is None else data.shape
        visit.add_macs([visit.rows_per_sample(data) * prod(shape[1:]) * prod(weight.shape[1:])], [None])
        raise LockNodeError("has a weight that is computed while running")
    return weight


def slide(visit: Visit, data: Operand, kernel: Sequence[int] | None) -> list[Axis]:
    """Lock the axes of space that a window slides over; return the axes of space of the result.

    A window of one position that moves by one and meets no padding takes every position by itself: the labels pass.
    What ``auto_pad`` adds there is nothing.

    Args:
        data: ``[N, C, ...]``.
        kernel: size of the window; None where it is the whole of space.
    """
    rank = data.rank - 2
    strides, pads = visit.integers("strides") or [1] * rank, visit.integers("pads") or [0] * 2 * rank
    added = visit.integers("output_padding") or [0] * rank
    sizes = data.shape[2:] if kernel is None or visit.integers("output_shape") is not None else kernel
    axes: list[Axis] = []
    for index, axis in enumerate(data.axes[2:]):
        if sizes[index] != 1 or strides[index] != 1 or pads[index] or pads[rank + index] or added[index]:
            visit.lock(axis, "slides over it")
            axes.append(None)
        else:
            axes.append(axis)
    return axes


@rule(
    "Conv", rewrite=rewrite_groups, weights=(1,), vectors=(2,), windowed=True, gradient="engine", note=_FILTERS,
)  # fmt: skip
@rule("ConvInteger", multiplies_bytes=(1, 3), rewrite=rewrite_groups, note=_FILTERS)
def convolution(visit: Visit) -> None:
    """x ``[N, C, ...]``, weight ``[M, C/groups, ...]``, bias ``[M]`` -> ``[N, M, ...]``."""
    weight = constant_weight(visit, 1)
    written = weight.axes[0]
    if visit.operator == "Conv" and visit.has_operand(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    elif visit.operator == "ConvInteger":
        if visit.has_operand(3) and prod(visit.operand(3).shape) > 1:
            written = visit.tie(written, visit.operand(3).axes[0])
        visit.mark_zero_point(weight, 3, axis=0)
    visit.set_result(convolve(visit, visit.operand(0), weight, written))


def convolve(visit: Visit, data: Operand, weight: Operand, written: Axis) -> list[Axis]:
    """State what any convolution ties and reads, and its MACs; return the axes of its result.

    Args:
        data: ``[N, C, ...]``.
        weight: ``[M, C/groups, ...]``.
        written: the filters, already tied to whatever else has one entry per filter.
    """
    groups = visit.integer("group", 1)
    filters, channels = weight.shape[0], data.shape[1]
    space = slide(visit, data, weight.shape[2:])
    visit.keep_whole(weight, range(2, weight.rank))
    read, reading = data.axes[1], weight.axes[1]
    if groups == 1:
        visit.tie(read, reading, "reads channels that stay")
        visit.mark_reader(weight, 1)
    elif groups == channels:
        reading = None
        _depthwise(visit, data, weight, filters // groups)
    else:
        if read is None:
            # Also where the input stays the axis reads: it is not a group of its own.
            visit.lock(reading, "reads channels that stay")
            visit.mark_reader(weight, 1)
        else:
            blocks = read.reshape(groups, channels // groups)
            visit.balance(blocks)
            reading = visit.label_by_blocks(weight, 1, blocks)
        _balance_filters(visit, weight, groups)
    visit.add_macs(
        [visit.rows_per_sample() * prod(weight.shape[2:]), filters, weight.shape[1], *visit.result_shape()[2:]],
        [data.axes[0], written, reading, *space],
    )
    return [data.axes[0], written, *space]


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
    space = slide(visit, data, weight.shape[2:])
    visit.keep_whole(weight, range(2, weight.rank))
    read = data.axes[1]
    visit.tie(read, weight.axes[0], "reads channels that stay")
    written = writing = weight.axes[1]
    if groups == channels and groups > 1 and read is not None:
        visit.keep_whole(weight, [1])
        written, writing = read.repeat(weight.shape[1]), None
    elif groups > 1:
        written, writing = _write_blocks(visit, weight, groups)
        if read is not None:
            visit.balance(read.reshape(groups, channels // groups))
    if groups < channels or read is None:
        visit.mark_reader(weight, 0)
    if visit.has_operand(2):
        written = visit.tie(written, visit.operand(2).axes[0])
    visit.set_result([data.axes[0], written, *space])
    visit.add_macs(
        [visit.rows_per_sample(data) * prod(weight.shape[2:]), channels, weight.shape[1], *data.shape[2:]],
        [data.axes[0], read, writing, *space],
    )


def _write_blocks(visit: Visit, weight: Operand, groups: int) -> tuple[Axis, Axis]:
    """Return the labels of the filters of a weight ``[C, M/groups, ...]``, equally many of every group, and its own."""
    filters = weight.shape[1]
    if filters == 1:
        return visit.new_locked_labels(groups, "has one filter per group"), None
    written = visit.new_labels(groups * filters)
    blocks = written.reshape(groups, filters)
    visit.balance(blocks)
    return written, visit.label_by_blocks(weight, 1, blocks, reads=False)


@rule("MaxPool", "AveragePool", windowed=True, gradient="engine", note=_POOLS)
@rule("LpPool", windowed=True, note=_POOLS)
@rule("GlobalMaxPool", note=_POOLS)
def pool(visit: Visit) -> None:
    data = visit.operand(0)
    if visit.is_result_read(1):
        raise LockNodeError("returns indices that count channels")
    axes = [*data.axes[:2], *slide(visit, data, visit.integers("kernel_shape"))]
    for index in range(visit.result_count):
        visit.set_result(axes, index=index)


@rule(
    "BatchNormalization", normalises=True, vectors=(1, 2), statistics=(3, 4),
    note="ties the channels to scale, shift, mean and variance",
)  # fmt: skip
def batch_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    if any(visit.is_result_read(index) for index in range(1, visit.result_count)):
        raise LockNodeError("returns running statistics")
    if not visit.integer("spatial", 1) and data.rank > 2:
        visit.lock_operand(data, "normalises every place of a channel by itself", except_axes=(0,))
        visit.set_result([data.axes[0], *([None] * (data.rank - 1))])
        return
    channels = data.axes[1]
    for index in range(1, 5):
        parameter = visit.operand(index)
        if channels is not None or parameter.axes[0] is not None:
            channels = visit.tie(channels, parameter.axes[0], "normalises channels that stay")
    visit.set_result([data.axes[0], channels, *data.axes[2:]])
    for index in range(1, visit.result_count):
        visit.set_unsized_result([channels], index=index)  # read by nobody
