"""Operators that pick or place positions by index."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.operators.table import Lookup
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.labels import LabelArray
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_PICKS = "picks positions that are computed while running"
_PLACES = "counts its positions"
_SCATTERS = "places along its axis, which locks; ties the others to indices and updates"


def _rewrite_gather(edit: Edit) -> None:
    """Indices count kept positions: each is replaced by how many stay before it."""
    data, result = edit.operand(0), edit.result()
    axis = edit.axis_attribute("axis", 0, data.rank)
    kept = data.positions(axis)
    indices = edit.value(1)
    if kept is None or indices is None:
        return
    found = indices.astype(np.int64) % data.shape[axis]
    for index in range(found.ndim):
        stays = result.positions(axis + index)
        found = found if stays is None else found.take(stays, index)
    edit.set_operand(1, np.searchsorted(kept, found))


@rule(
    "Gather", rewrite=_rewrite_gather, keeps_zero=True, moves="pick", weights=(0,), indices=(1,),
    lookups=(Lookup(1, 0, "axis"),), gradient="engine",
    note="picks labels by known indices; indices that are computed lock the axis; passes the others; with `--features` "
    "columns behind a flattening are units",
)  # fmt: skip
def gather(visit: Visit) -> None:
    """data ``[..., d, ...]``, indices ``[i...]`` -> ``[..., i..., ...]``."""
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", 0, data.rank)
    labels, indices = data.axes[axis], None if data.dynamic[axis] else visit.value(1)
    picked: list[Axis]
    columns = visit.columns(data, axis)
    if columns is not None:
        picked = [columns]
    elif labels is None or indices is None:
        if data.constant:
            visit.keep_whole(data, [axis])
        visit.lock(labels, _PICKS)
        picked = list(visit.operand(1).axes) if not visit.is_constant(1) else [None] * _rank(visit, data)
    else:
        positions = indices.astype(np.int64) % data.shape[axis]
        picked = [None] * indices.ndim
        line = _line(labels[positions])
        if line is None:
            # A single position is not an axis that could shrink, and a box of positions need not stay a box.
            visit.lock(labels[np.unique(positions)], "picks it by its number")
        else:
            picked[line] = visit.select(labels, np.moveaxis(positions, line, -1).reshape(-1, indices.shape[line])[0])
    visit.set_result([*data.axes[:axis], *picked, *data.axes[axis + 1 :]])


def _line(box: LabelArray) -> int | None:
    """Return the axis along which alone the labels of a box differ, as in ``[N, C, 1, 1]``; None without one."""
    for axis, size in enumerate(box.shape):
        if size > 1 and box.size:
            rows = np.moveaxis(box, axis, -1).reshape(-1, size)
            if (rows == rows[0]).all():
                return axis
    return None


def _rank(visit: Visit, data: Operand) -> int:
    return len(visit.result_shape()) - data.rank + 1


def _follow(visit: Visit, data: Operand, others: Sequence[Operand], axis: int) -> list[Axis]:
    """Tie operands position by position on all axes but one, which locks; return the axes of the first of them."""
    visit.lock(data.axes[axis], _PICKS)
    for index in range(data.rank):
        for other in others:
            if index == axis:
                continue
            if other.shape[index] == data.shape[index]:
                visit.tie(data.axes[index], other.axes[index], "picks at positions that stay")
            else:
                visit.lock(data.axes[index], "picks at some of its positions")
                visit.lock(other.axes[index], "picks at some of its positions")
    return list(others[0].axes)


@rule(
    "GatherElements", effect="locks", moves="pick", indices=(1,), lookups=(Lookup(1, 0, "axis"),), gradient="engine",
    note="picks along its axis, which locks; ties the others to the indices",
)  # fmt: skip
def gather_elements(visit: Visit) -> None:
    data, indices = visit.operand(0), visit.operand(1)
    visit.set_result(_follow(visit, data, [indices], visit.axis_attribute("axis", 0, data.rank)))


@rule(
    "ScatterElements", effect="locks", indices=(1,), lookups=(Lookup(1, 0, "axis"),), gradient="engine",
    note=_SCATTERS,
)  # fmt: skip
@rule("Scatter", effect="locks", indices=(1,), lookups=(Lookup(1, 0, "axis"),), note=_SCATTERS)
def scatter_elements(visit: Visit) -> None:
    data, indices, updates = visit.operand(0), visit.operand(1), visit.operand(2)
    axis = visit.axis_attribute("axis", 0, data.rank)
    visit.tie(indices.axes[axis], updates.axes[axis])
    _follow(visit, data, [indices, updates], axis)
    visit.set_result([None if index == axis else labels for index, labels in enumerate(data.axes)])


@rule(
    "GatherND", effect="locks", moves="pick", indices=(1,), lookups=(Lookup(1, 0, "leading"),), gradient="engine",
    note="picks along the axes that its indices count, which lock; passes the others",
)  # fmt: skip
def gather_tuples(visit: Visit) -> None:
    data, indices = visit.operand(0), visit.operand(1)
    batch, length = visit.integer("batch_dims", 0), indices.shape[-1]
    visit.lock(indices.axes[-1], "are tuples of indices")
    for axis in data.axes[batch : batch + length]:
        visit.lock(axis, _PICKS)
    shared = [visit.tie(first, second) for first, second in zip(data.axes[:batch], indices.axes[:batch], strict=True)]
    visit.set_result([*shared, *indices.axes[batch:-1], *data.axes[batch + length :]])


@rule(
    "ScatterND", effect="locks", computes_sizes=True, indices=(1,), lookups=(Lookup(1, 0, "leading"),),
    gradient="engine", note="places along the axes that its indices count, which lock; ties the others",
)  # fmt: skip
def scatter_tuples(visit: Visit) -> None:
    data, indices, updates = visit.operand(0), visit.operand(1), visit.operand(2)
    length, places = indices.shape[-1], indices.rank - 1
    visit.lock(indices.axes[-1], "are tuples of indices")
    for axis in data.axes[:length]:
        visit.lock(axis, _PLACES)
    for first, second in zip(indices.axes[:-1], updates.axes[:places], strict=True):
        visit.tie(first, second)
    behind = [
        visit.tie(first, second, "places positions that stay")
        for first, second in zip(data.axes[length:], updates.axes[places:], strict=True)
    ]
    visit.set_result([*([None] * length), *behind])


@rule("OneHot", lookups=(Lookup(0, 1, "value"),), gradient="zero", note="adds an axis that stays; passes the others")
def one_hot(visit: Visit) -> None:
    indices = visit.operand(0)
    axis = visit.axis_attribute("axis", -1, indices.rank + 1)
    visit.set_result([*indices.axes[:axis], None, *indices.axes[axis:]])


@rule(
    "Trilu", keeps_zero=True, effect="locks", indices=(1,), gradient="engine",
    note="compares positions of its last two axes; passes the others",
)  # fmt: skip
def triangle(visit: Visit) -> None:
    data = visit.operand(0)
    for axis in data.axes[-2:]:
        visit.lock(axis, "compares its positions")
    visit.set_result([*data.axes[:-2], None, None])


@rule("ReverseSequence", effect="locks", note="reverses along time, which locks; passes the others")
def reverse_sequence(visit: Visit) -> None:
    data, lengths = visit.operand(0), visit.operand(1)
    batch, time = visit.axis_attribute("batch_axis", 1, data.rank), visit.axis_attribute("time_axis", 0, data.rank)
    if batch == time:
        raise LockNodeError("names one axis twice")
    visit.lock(data.axes[time], "reverses it")
    axes = list(data.axes)
    axes[batch], axes[time] = visit.tie(data.axes[batch], lengths.axes[0]), None
    visit.set_result(axes)


@rule("CastLike", elementwise=True, moves="order", indices=(1,), note="works position by position")
def cast_like(visit: Visit) -> None:
    visit.ignore_operand(1)
    visit.set_result(visit.operand(0).axes)
