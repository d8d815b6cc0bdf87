"""Operators that join, cut and pad axes."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit


@rule(
    "Concat", keeps_zero=True, moves="pick", gradient="engine",
    note="joins the labels of its operands; ties the other axes",
)  # fmt: skip
def concat(visit: Visit) -> None:
    operands = visit.operands()
    visit.set_result(join(visit, operands, visit.axis_attribute("axis", 1, operands[0].rank)))


def join(visit: Visit, operands: Sequence[Operand], joined: int) -> list[Axis]:
    """Return the axes of operands that are joined along one axis and tied along the others."""
    result: list[Axis] = []
    for index in range(operands[0].rank):
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
    return result


def _join(visit: Visit, operands: Sequence[Operand], index: int) -> Axis:
    parts = []
    for operand in operands:
        axis = operand.axes[index]
        if operand.dynamic[index]:
            visit.lock(axis, "joins it at a size that is not known")
            axis = None
        if axis is None:
            axis = visit.new_locked_labels(operand.shape[index], "joins positions that stay")
        parts.append(axis)
    return np.concatenate(parts)


def _rewrite_split(edit: Edit) -> None:
    data = edit.operand(0)
    axis = edit.axis_attribute("axis", 0, data.rank)
    if data.positions(axis) is None:
        return
    sizes = [edit.result(index).size(axis) for index in range(edit.result_count)]
    if edit.opset_version < 13:
        edit.set_integers("split", sizes)
        return
    edit.remove_attribute("num_outputs")
    edit.set_operand(1, sizes)


@rule(
    "Split", rewrite=_rewrite_split, keeps_zero=True, moves="pick", indices=(1,), gradient="engine",
    note="hands each result its run of labels",
)  # fmt: skip
def split(visit: Visit) -> None:
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", 0, data.rank)
    start = 0
    for index in range(visit.result_count):
        size = visit.result_shape(index)[axis]
        labels = data.axes[axis]
        if data.dynamic[axis]:
            visit.lock(labels, "cuts it at positions that are computed while running")
        part = None if labels is None else visit.select(labels, np.arange(start, start + size))
        visit.set_result([part if position == axis else other for position, other in enumerate(data.axes)], index=index)
        start += size


def _slices(visit: Visit, rank: int) -> list[tuple[int, slice | None]]:
    """Return each sliced axis and its slice, None where that is computed while running."""
    starts: Sequence[int | None] | None
    ends: Sequence[int | None] | None
    if visit.opset_version < 10:
        starts, ends = visit.integers("starts"), visit.integers("ends")
        axes, steps = visit.integers("axes"), None
    else:
        starts, ends = visit.partial_value(1), visit.partial_value(2)
        axes = visit.require_integers(3, "axes") if visit.has_operand(3) else None
        steps = visit.require_integers(4, "steps") if visit.has_operand(4) else None
    if starts is None and axes is not None:
        starts = [None] * len(axes)
    if starts is None:
        raise LockNodeError("has starts that are computed while running")
    axes = axes if axes is not None else list(range(len(starts)))
    if ends is None:
        ends = [None] * len(starts)
    return [
        (axis % rank, None if start is None or end is None else _as_slice(start, end, step))
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True)
    ]


def _as_slice(start: int, end: int, step: int) -> slice:
    """Going backwards, an end far below zero means through the first, which Python spells None."""
    return slice(start, None if step < 0 and end < -(2**31) else end, step)


def _rewrite_slice(edit: Edit) -> None:
    """A run of positions is again a run after removal: count what stays before and inside it.

    Positions in steps are no run any more; they are gathered before the slice.
    """
    data, result = edit.operand(0), edit.result()
    shape = data.shape
    old = edit.opset_version < 10
    starts: Sequence[int | None] | None = edit.integers("starts") if old else edit.partial_value(1)
    ends: Sequence[int | None] | None = edit.integers("ends") if old else edit.partial_value(2)
    axes = edit.integers("axes") if old else edit.operand_integers(3)
    if starts is None or ends is None:
        return  # its axes are whole, or the label function would have locked them
    axes = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(starts)))
    steps = edit.operand_integers(4) or [1] * len(starts)
    new_starts, new_ends, new_steps = list(starts), list(ends), list(steps)
    for index, axis in enumerate(axes):
        kept, start, end = data.positions(axis), starts[index], ends[index]
        if kept is None or start is None or end is None:
            continue
        wanted = np.arange(shape[axis])[_as_slice(start, end, steps[index])]
        if steps[index] == 1:
            new_starts[index] = int(np.searchsorted(kept, wanted[0] if wanted.size else 0))
        else:
            stays = result.positions(axis)
            edit.gather_operand(0, axis, np.searchsorted(kept, wanted if stays is None else wanted[stays]))
            new_starts[index], new_steps[index] = 0, 1
        new_ends[index] = (new_starts[index] or 0) + result.size(axis)
    if old:
        edit.set_integers("starts", [start for start in new_starts if start is not None])
        edit.set_integers("ends", [end for end in new_ends if end is not None])
        return
    for operand, new, before in ((1, new_starts, starts), (2, new_ends, ends), (4, new_steps, steps)):
        if new != list(before):
            edit.set_operand(operand, new)


@rule(
    "Slice", rewrite=_rewrite_slice, keeps_zero=True, moves="pick", indices=(1, 2, 3, 4), gradient="engine",
    note="keeps some of the labels",
)  # fmt: skip
def slice_axes(visit: Visit) -> None:
    data = visit.operand(0)
    result = list(data.axes)
    if any(axis is not None for axis in data.axes):
        for axis, chosen in _slices(visit, data.rank):
            labels = data.axes[axis]
            if labels is None:
                continue
            if chosen is None or data.dynamic[axis]:
                visit.lock(labels, "cuts it at positions that are computed while running")
                result[axis] = None
                continue
            selected = np.arange(data.shape[axis])[chosen]
            if not np.array_equal(selected, np.arange(data.shape[axis])):
                result[axis] = visit.select(labels, selected)
    visit.set_result(result)


def _pads(visit: Visit, rank: int) -> list[tuple[int | None, int | None]]:
    """Return (before, after) for each axis, None where that is computed while running."""
    flat: Sequence[int | None] | None = visit.integers("pads") if visit.opset_version < 11 else visit.partial_value(1)
    named = visit.opset_version >= 18 and visit.has_operand(3)
    axes = visit.require_integers(3, "axes") if named else list(range(rank))
    if flat is None:
        flat = [None] * (2 * len(axes))
    pads: list[tuple[int | None, int | None]] = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        pads[axis % rank] = (flat[index], flat[len(axes) + index])
    return pads


def _rewrite_pad(edit: Edit) -> None:
    data, result = edit.operand(0), edit.result()
    shape = data.shape
    flat: Sequence[int | None] | None = edit.integers("pads") if edit.opset_version < 11 else edit.partial_value(1)
    axes = edit.operand_integers(3) if edit.opset_version >= 18 else None
    if flat is None or not result.shrinks:
        return
    axes = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(shape)))
    pads = list(flat)
    for index, axis in enumerate(axes):
        kept = result.positions(axis)
        if kept is None:
            continue
        before = flat[index]
        if before is None:
            continue
        pads[index] = int(np.count_nonzero(kept < before))
        pads[len(axes) + index] = int(np.count_nonzero(kept >= before + shape[axis]))
    if pads == list(flat):
        return
    if edit.opset_version < 11:
        edit.set_integers("pads", [size for size in pads if size is not None])
    else:
        edit.set_operand(1, pads)


@rule(
    "Pad", rewrite=_rewrite_pad, indices=(1, 2, 3), gradient="engine",
    note="adds labels of its own, which may go as well",
)  # fmt: skip
def pad(visit: Visit) -> None:
    data = visit.operand(0)
    constant = visit.text("mode", "constant") == "constant"
    result: list[Axis] = []
    labelled = any(axis is not None for axis in data.axes)
    for axis, (before, after) in zip(data.axes, _pads(visit, data.rank) if labelled else [], strict=False):
        if axis is None or before == after == 0:
            result.append(axis)
        elif before is None or after is None:
            visit.lock(axis, "pads it as far as is computed while running")
            result.append(None)
        elif not constant or before < 0 or after < 0:
            raise LockNodeError("copies or cuts its positions")
        else:
            result.append(np.concatenate([visit.new_labels(before), axis, visit.new_labels(after)]))
    visit.set_result(result if labelled else data.axes if constant else [None] * data.rank)
