"""Operators that make tensors of sizes, or sizes of tensors.

Sizes are followed by the numbers they have before removal. Where removal would change a number that is still
used afterwards, the number from before is put in its place: so whatever is computed from sizes stays what it was,
and every operator that takes a size writes down the new one itself.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit

_COUNTS = "counts positions, which stay"


def _wanted_axes(node: onnx_ir.Node, rank: int) -> range:
    """Return the axes whose sizes a Shape node gives."""
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)
    return range(rank)[start:end]


def _rewrite_shape(edit: Edit) -> None:
    data = edit.operand_name(0)
    if data is None or not edit.changed(data):
        return
    axes = _wanted_axes(edit.node, len(edit.shape(data)))
    before = edit.partial_result()
    assert before is not None  # the label function has seen to it
    after = [None if size is None else edit.size(data, axis) for axis, size in zip(axes, before, strict=True)]
    changed = {index for index, (new, old) in enumerate(zip(after, before, strict=True)) if new != old}

    def sees_a_change(user: onnx_ir.Node, index: int) -> bool:
        picked = _picked(edit.values_of, user, len(before)) if index == 0 else None
        return picked is None or bool(changed & picked)

    if changed:
        edit.keep_result(after, before, sees_a_change)


def _picked(values_of: Callable[[onnx_ir.Value], list[int] | None], user: onnx_ir.Node, length: int) -> set[int] | None:
    """Return which elements of a vector of sizes a node reads; None when that is not plain."""
    if user.domain not in ("", "ai.onnx") or user.op_type not in ("Gather", "Slice"):
        return None
    rest = [values_of(value) for value in user.inputs[1:] if value is not None]
    numbers = [part for part in rest if part is not None]
    if len(numbers) != len(rest):
        return None
    if user.op_type == "Gather":
        return {index % length for index in numbers[0]}
    if not numbers:
        starts, ends = user.attributes.get_ints("starts", []), user.attributes.get_ints("ends", [])
        return set(range(length)[slice(starts[0], ends[0])]) if starts and ends else None
    step = numbers[3][0] if len(numbers) > 3 else 1
    return set(range(length)[slice(numbers[0][0], numbers[1][0], step)])


@rule(
    "Shape", rewrite=_rewrite_shape, gradient="zero",
    note="sizes stay what they were; a size that is an output locks its axis",
)  # fmt: skip
def shape_of(visit: Visit) -> None:
    data = visit.operand(0)
    sizes = visit.facts.shapes.partial(visit.node.outputs[0].name or "")
    result = visit.node.outputs[0]
    wanted = _wanted_axes(visit.node, data.rank)
    picks = [_picked(visit.values_of, use.node, len(wanted)) if use.idx == 0 else None for use in result.uses()]
    shown = result.is_graph_output()
    for index, axis in enumerate(wanted):
        seen = shown or any(picked is None or index in picked for picked in picks)
        if shown or (seen and (sizes is None or sizes[index] is None)):
            visit.lock(data.axes[axis], "gives its size, which is not known before running")
    visit.give([None])


@rule("Size", effect="locks", gradient="zero", computes_sizes=True, note="counts every position, which locks")
def size_of(visit: Visit) -> None:
    data = visit.operand(0)
    visit.lock_others(data, (), "counts its positions")
    visit.give([])


def _rewrite_filled(edit: Edit) -> None:
    result = edit.result_name()
    sizes = edit.partial(0)
    if sizes is None or not edit.changed(result):
        return
    edit.set_elements(0, [None if size is None else edit.size(result, axis) for axis, size in enumerate(sizes)])


@rule(
    "ConstantOfShape", rewrite=_rewrite_filled, computes_sizes=True,
    note="makes positions that are all alike, which may go",
)  # fmt: skip
def constant_of_shape(visit: Visit) -> None:
    shape = visit.result_shape()
    sizes = visit.partial(0)
    axes: list[Axis] = []
    for index, length in enumerate(shape):
        known = sizes is not None and sizes[index] is not None and length > 1
        axes.append(visit.fresh(length) if known else None)
    visit.give(axes)


@rule("Range", effect="locks", computes_sizes=True, note=_COUNTS)
@rule("EyeLike", effect="locks", note=_COUNTS)
@rule("NonZero", effect="locks", gradient="zero", note=_COUNTS)
def counted(visit: Visit) -> None:
    for operand in visit.operands():
        visit.lock_others(operand, (), "counts its positions")
    visit.give([None] * len(visit.result_shape()))


def _rewrite_expand(edit: Edit) -> None:
    result = edit.result_name()
    sizes = edit.partial(1)
    if sizes is None or not edit.changed(result):
        return
    offset = len(edit.shape(result)) - len(sizes)
    wanted = [size if size in (None, 1) else edit.size(result, offset + axis) for axis, size in enumerate(sizes)]
    if wanted != list(sizes):
        edit.set_elements(1, wanted)


@rule(
    "Expand", rewrite=_rewrite_expand, keeps_zero=True, moves="repeat", indices=(1,), gradient="engine",
    note="repeats axes of size one into positions that are all alike, which may go; passes the others",
)  # fmt: skip
def expand(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    sizes = visit.partial(1)
    axes: list[Axis] = []
    for index, length in enumerate(shape):
        place = index - (len(shape) - data.rank)
        element = index - (len(shape) - (len(sizes) if sizes is not None else 0))
        size = sizes[element] if sizes is not None and element >= 0 else 1 if sizes is not None else None
        if place >= 0 and data.shape[place] == length:
            axis = data.axes[place]
            if size is None:
                visit.lock(axis, "expands to a size that is computed while running")
                axis = None
            axes.append(axis)
        else:
            axes.append(visit.copies(length) if size is not None and length > 1 else None)
    visit.give(axes)


def _rewrite_tile(edit: Edit) -> None:
    data, result = edit.operand_name(0), edit.result_name()
    repeats = edit.partial(1)
    if repeats is None or not edit.changed(result):
        return
    shape = edit.shape(data)
    wanted = [
        edit.size(result, axis) if times is not None and shape[axis] == 1 else times
        for axis, times in enumerate(repeats)
    ]
    if wanted != list(repeats):
        edit.set_elements(1, wanted)


@rule(
    "Tile", rewrite=_rewrite_tile, keeps_zero=True, moves="repeat", indices=(1,), gradient="engine",
    note="ties copies of a position, unless its axis has size one",
)  # fmt: skip
def tile(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    repeats = visit.partial(1)
    axes: list[Axis] = []
    for index, (axis, length) in enumerate(zip(data.axes, shape, strict=True)):
        times = None if repeats is None else repeats[index]
        if times is None:
            visit.lock(axis, "repeats it as often as is computed while running")
            axes.append(None)
        elif axis is None:
            axes.append(visit.fresh(length) if data.shape[index] == 1 and length > 1 else None)
        else:
            axes.append(np.tile(axis, times))
    visit.give(axes)
