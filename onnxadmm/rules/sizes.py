"""Operators that make tensors of sizes, or sizes of tensors.

Sizes are followed by the numbers they have before removal. Where removal would change a number that is still
used afterwards, the number from before is put in its place: so whatever is computed from sizes stays what it was,
and every operator that takes a size writes down the new one itself.
"""

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.table import rule
from onnxadmm.rules.vectors import shown_axes
from onnxadmm.rules.visit import Visit

_COUNTS = "counts positions, which stay"


def _rewrite_shape(edit: Edit) -> None:
    left = edit.sizes_left() if edit.operand(0).shrinks else None
    if left is not None:  # else what is read of it stays: the label function has seen to that
        edit.keep_result(left)


@rule(
    "Shape", rewrite=_rewrite_shape, gradient="zero",
    note="sizes stay what they were; a size that is an output locks its axis",
)  # fmt: skip
def shape_of(visit: Visit) -> None:
    data = visit.operand(0)
    sizes = visit.partial_result_value()
    shown, read = visit.is_graph_output(0), visit.result_elements_read()
    for index, axis in enumerate(shown_axes(visit, data.rank)):
        if shown or (index in read and (sizes is None or sizes[index] is None)):
            visit.lock(data.axes[axis], "gives its size, which is not known before running")
    visit.set_result([None])


@rule("Size", effect="locks", gradient="zero", computes_sizes=True, note="counts every position, which locks")
def size_of(visit: Visit) -> None:
    data = visit.operand(0)
    visit.lock_operand(data, "counts its positions")
    visit.set_result([])


def _rewrite_filled(edit: Edit) -> None:
    result = edit.result()
    sizes = edit.partial_value(0)
    if sizes is None or not result.shrinks:
        return
    edit.set_operand(0, [None if size is None else result.size(axis) for axis, size in enumerate(sizes)])


@rule(
    "ConstantOfShape", rewrite=_rewrite_filled, computes_sizes=True,
    note="makes positions that are all alike, which may go",
)  # fmt: skip
def constant_of_shape(visit: Visit) -> None:
    shape = visit.result_shape()
    sizes = visit.partial_value(0)
    axes: list[Axis] = []
    for index, length in enumerate(shape):
        known = sizes is not None and sizes[index] is not None and length > 1
        axes.append(visit.new_labels(length) if known else None)
    visit.set_result(axes)


@rule("Range", effect="locks", computes_sizes=True, note=_COUNTS)
@rule("EyeLike", effect="locks", note=_COUNTS)
@rule("NonZero", effect="locks", gradient="zero", note=_COUNTS)
def counted(visit: Visit) -> None:
    for operand in visit.operands():
        visit.lock_operand(operand, "counts its positions")
    visit.set_result([None] * len(visit.result_shape()))


def _rewrite_expand(edit: Edit) -> None:
    result = edit.result()
    sizes = edit.partial_value(1)
    if sizes is None or not result.shrinks:
        return
    offset = result.rank - len(sizes)
    wanted = [size if size in (None, 1) else result.size(offset + axis) for axis, size in enumerate(sizes)]
    if wanted != list(sizes):
        edit.set_operand(1, wanted)


@rule(
    "Expand", rewrite=_rewrite_expand, keeps_zero=True, moves="repeat", indices=(1,), gradient="engine",
    note="repeats axes of size one into positions that are all alike, which may go; passes the others",
)  # fmt: skip
def expand(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    sizes = visit.partial_value(1)
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
            axes.append(visit.new_copy_labels(length) if size is not None and length > 1 else None)
    visit.set_result(axes)


def _rewrite_tile(edit: Edit) -> None:
    data, result = edit.operand(0), edit.result()
    repeats = edit.partial_value(1)
    if repeats is None or not result.shrinks:
        return
    shape = data.shape
    wanted = [
        result.size(axis) if times is not None and shape[axis] == 1 else times for axis, times in enumerate(repeats)
    ]
    if wanted != list(repeats):
        edit.set_operand(1, wanted)


@rule(
    "Tile", rewrite=_rewrite_tile, keeps_zero=True, moves="repeat", indices=(1,), gradient="engine",
    note="ties copies of a position, unless its axis has size one",
)  # fmt: skip
def tile(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    repeats = visit.partial_value(1)
    axes: list[Axis] = []
    for index, (axis, length) in enumerate(zip(data.axes, shape, strict=True)):
        times = None if repeats is None else repeats[index]
        if times is None:
            visit.lock(axis, "repeats it as often as is computed while running")
            axes.append(None)
        elif axis is None:
            axes.append(visit.new_labels(length) if data.shape[index] == 1 and length > 1 else None)
        else:
            axes.append(np.tile(axis, times))
    visit.set_result(axes)
