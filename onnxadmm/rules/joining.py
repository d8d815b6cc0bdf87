"""Operators that join, cut and pad axes."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Operand, Visit


@rule("Concat", keeps_zero=True, note="joins the labels of its operands; ties the other axes")
def concat(visit: Visit) -> None:
    operands = visit.operands()
    rank = operands[0].rank
    joined = visit.axis_attribute("axis", 1, rank)
    result: list[Axis] = []
    for index in range(rank):
        axes = [operand.axes[index] for operand in operands]
        if all(axis is None for axis in axes):
            result.append(None)
        elif index == joined:
            result.append(_join(visit, operands, index))
        else:
            axis = axes[0]
            for other in axes[1:]:
                axis = visit.tie(axis, other, "joins it with positions that stay")
            result.append(axis)
    visit.give(result)


def _join(visit: Visit, operands: Sequence[Operand], index: int) -> Axis:
    parts = []
    for operand in operands:
        axis = operand.axes[index]
        parts.append(visit.fixed(operand.shape[index], "joins positions that stay") if axis is None else axis)
    return np.concatenate(parts)


def _rewrite_split(edit: Edit) -> None:
    data = edit.operand_name(0)
    axis = edit.integer("axis", 0) % len(edit.shape(data))
    if edit.positions(data, axis) is None:
        return
    sizes = [edit.size(output.name, axis) for output in edit.node.outputs]
    if edit.version < 13:
        edit.set_integers("split", sizes)
        return
    edit.drop_attribute("num_outputs")
    edit.set_operand(1, sizes)


@rule("Split", rewrite=_rewrite_split, keeps_zero=True, note="hands each result its run of labels")
def split(visit: Visit) -> None:
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", 0, data.rank)
    start = 0
    for index in range(len(visit.node.outputs)):
        size = visit.result_shape(index)[axis]
        labels = data.axes[axis]
        part = None if labels is None else visit.select(labels, np.arange(start, start + size))
        visit.give([part if position == axis else other for position, other in enumerate(data.axes)], result=index)
        start += size


def _slices(visit: Visit, rank: int) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, end, step) for each sliced axis, as written."""
    if visit.version < 10:
        starts, ends = visit.integers("starts"), visit.integers("ends")
        axes, steps = visit.integers("axes"), None
        if starts is None or ends is None:
            raise LockNodeError("has no starts or ends")
    else:
        starts, ends = visit.known(1, "starts"), visit.known(2, "ends")
        axes = visit.known(3, "axes") if visit.has(3) else None
        steps = visit.known(4, "steps") if visit.has(4) else None
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    return [(axis % rank, start, end, step) for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)]


def _rewrite_slice(edit: Edit) -> None:
    """A run of positions is again a run after removal: count what stays before and inside it."""
    data, result = edit.operand_name(0), edit.result_name()
    shape = edit.shape(data)
    old = edit.version < 10
    starts = edit.integers("starts") if old else edit.integers_of(1)
    ends = edit.integers("ends") if old else edit.integers_of(2)
    axes = edit.integers("axes") if old else edit.integers_of(3)
    if starts is None or ends is None:
        return  # its axes are whole, or the label function would have locked them
    axes = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(starts)))
    new_starts, new_ends = list(starts), list(ends)
    for index, axis in enumerate(axes):
        kept = edit.positions(data, axis)
        if kept is None:
            continue
        first = range(shape[axis])[starts[index] : ends[index]].start
        new_starts[index] = int(np.searchsorted(kept, first))
        new_ends[index] = new_starts[index] + edit.size(result, axis)
    if (new_starts, new_ends) == (list(starts), list(ends)):
        return
    if old:
        edit.set_integers("starts", new_starts)
        edit.set_integers("ends", new_ends)
    else:
        edit.set_operand(1, new_starts)
        edit.set_operand(2, new_ends)


@rule("Slice", rewrite=_rewrite_slice, keeps_zero=True, note="keeps a run of labels; steps lock")
def slice_axes(visit: Visit) -> None:
    data = visit.operand(0)
    result = list(data.axes)
    if any(axis is not None for axis in data.axes):
        for axis, start, end, step in _slices(visit, data.rank):
            labels = data.axes[axis]
            selected = np.arange(data.shape[axis])[start:end:step]
            if labels is None or (selected.size == data.shape[axis] and step == 1):
                continue
            if step != 1:
                raise LockNodeError("takes steps over it")
            result[axis] = visit.select(labels, selected)
    visit.give(result)


def _pads(visit: Visit, rank: int) -> list[tuple[int, int]]:
    """Return (before, after) for each axis."""
    flat = visit.integers("pads") if visit.version < 11 else visit.known(1, "pads")
    if flat is None:
        raise LockNodeError("has no pads")
    axes = visit.known(3, "axes") if visit.version >= 18 and visit.has(3) else list(range(rank))
    pads = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        pads[axis % rank] = (flat[index], flat[len(axes) + index])
    return pads


def _rewrite_pad(edit: Edit) -> None:
    data, result = edit.operand_name(0), edit.result_name()
    shape = edit.shape(data)
    flat = edit.integers("pads") if edit.version < 11 else edit.integers_of(1)
    axes = edit.integers_of(3) if edit.version >= 18 else None
    if flat is None or not edit.changed(result):
        return
    axes = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(shape)))
    pads = list(flat)
    for index, axis in enumerate(axes):
        kept = edit.positions(result, axis)
        if kept is None:
            continue
        before = flat[index]
        pads[index] = int(np.count_nonzero(kept < before))
        pads[len(axes) + index] = int(np.count_nonzero(kept >= before + shape[axis]))
    if pads == list(flat):
        return
    if edit.version < 11:
        edit.set_integers("pads", pads)
    else:
        edit.set_operand(1, pads)


@rule("Pad", rewrite=_rewrite_pad, note="adds labels of its own, which may go as well")
def pad(visit: Visit) -> None:
    data = visit.operand(0)
    constant = visit.text("mode", "constant") == "constant"
    result: list[Axis] = []
    labelled = any(axis is not None for axis in data.axes)
    for axis, (before, after) in zip(data.axes, _pads(visit, data.rank) if labelled else [], strict=False):
        if axis is None or before == after == 0:
            result.append(axis)
        elif not constant or before < 0 or after < 0:
            raise LockNodeError("copies or cuts its positions")
        else:
            result.append(np.concatenate([visit.fresh(before), axis, visit.fresh(after)]))
    visit.give(result if labelled else data.axes if constant else [None] * data.rank)
