"""Operators that only move positions about: reshape, transpose, squeeze, flatten."""

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.labels import LabelArray
from onnxadmm.rules.runs import runs
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_MIXES = "mixes it with a size that is not known"


def reshaped_axes(visit: Visit, data: Operand, shape: Sequence[int], dynamic: Sequence[bool]) -> list[Axis]:
    """Return the axes of ``data`` seen as ``shape``, row-major order kept.

    An axis that becomes one axis keeps its labels; several of which one carries labels become one whose
    labels are repeated; everything else is left to be regrouped when all locks are known.
    """
    result: list[Axis] = [None] * len(shape)
    for left, right in runs(data.shape, shape):
        sources = [(data.shape[index], data.axes[index]) for index in left]
        sizes = [shape[index] for index in right]
        free = [index for index, place in enumerate(left) if data.dynamic[place]]
        freed = [index for index, place in enumerate(right) if dynamic[place]]
        if all(axis is None for _, axis in sources) or (len(left) == 1 and len(right) == 1):
            found = [sources[0][1]] * len(right)
        elif free or freed:
            found = _regroup_free(visit, sources, sizes, free, freed)
        else:
            found = _regroup_known(visit, sources, sizes)
        for index, axis in zip(right, found, strict=True):
            result[index] = axis
    return result


def _regroup_known(visit: Visit, sources: Sequence[tuple[int, Axis]], sizes: Sequence[int]) -> list[Axis]:
    """Return the axes of one run whose sizes are all known."""
    labelled = [index for index, (_, axis) in enumerate(sources) if axis is not None]
    if not labelled:
        return [None] * len(sizes)
    if len(sources) == 1 and len(sizes) == 1:
        return [sources[0][1]]
    if len(sizes) == 1 and len(labelled) == 1:
        return [_spread(sources, labelled[0])]
    targets = [visit.new_labels(size) for size in sizes]
    visit.regroup(sources, list(zip(sizes, targets, strict=True)))
    return list(targets)


def _regroup_free(
    visit: Visit, sources: Sequence[tuple[int, Axis]], sizes: Sequence[int], free: Sequence[int], freed: Sequence[int]
) -> list[Axis]:
    """Return the axes of one run with free sizes, at the places ``free`` of the sources and ``freed`` of the targets.

    Behind the last free size all sizes are known. It may take in some of them, or let go of them: in ``[b, h, d]``
    and ``[b*h, d]`` the same ``h`` labels follow each other for every sample, whatever ``b`` is.
    """
    result: list[Axis] = [None] * len(sizes)
    last = max(free, default=len(sources) - 1)
    lasted = max(freed, default=len(sizes) - 1)
    length, labels = sources[last]
    known = list(sources[last + 1 :])
    leads = last > 0 and 0 not in free and 0 not in freed and sources[0][1] is not None
    if leads:
        result[0] = _lead(visit, sources[0], sizes[0])
    for _, axis in sources[int(leads) : last]:
        visit.lock(axis, _MIXES)
    inside, outside = prod([size for size, _ in known]), prod(sizes[lasted + 1 :])
    taken, given = max(1, inside // outside), max(1, outside // inside)  # axes that it takes in, or lets go of
    fits = bool(free and freed) and inside * given == outside * taken and not leads
    if not fits or length % given or sizes[lasted] % taken:
        for _, axis in sources[last:]:
            visit.lock(axis, _MIXES)
        return result
    if taken == given == 1 and last == lasted == 0 and length == sizes[0]:
        return [labels, *_follow(visit, known, sizes[1:])]
    if given > 1:
        known = [(given, _cycle(visit, labels, given)), *known]
    else:
        visit.lock(labels, _MIXES)
    found = _follow(visit, known, [taken, *sizes[lasted + 1 :]])
    if found[0] is not None:
        result[lasted] = np.tile(found[0], sizes[lasted] // taken)
    result[lasted + 1 :] = found[1:]
    return result


def _follow(visit: Visit, sources: Sequence[tuple[int, Axis]], sizes: Sequence[int]) -> list[Axis]:
    """Return the axes of several axes of known sizes seen with other known sizes."""
    result: list[Axis] = [None] * len(sizes)
    for left, right in runs([size for size, _ in sources], sizes):
        found = _regroup_known(visit, [sources[index] for index in left], [sizes[index] for index in right])
        for index, axis in zip(right, found, strict=True):
            result[index] = axis
    return result


def _cycle(visit: Visit, labels: Axis, length: int) -> Axis:
    """Return the ``length`` labels that repeat along a free axis; labels that would repeat otherwise are tied."""
    if labels is None:
        return None
    cycle = period(labels)
    if length % cycle and cycle % length:
        visit.lock(labels, _MIXES)
        return None
    rows = labels.reshape(-1, length)
    first: LabelArray = rows[0]
    visit.tie(np.broadcast_to(first, rows.shape), rows)
    return first


def period(labels: LabelArray) -> int:
    """Return after how many positions labels repeat; along a free axis every sample has the same ones."""
    for length in range(1, labels.size):
        if labels.size % length == 0 and (labels.reshape(-1, length) == labels[:length]).all():
            return length
    return int(labels.size)


def _lead(visit: Visit, source: tuple[int, Axis], size: int) -> Axis:
    """Return the labels of the first axis of a run whose later axes have free sizes.

    The first axes count blocks of the run: where one count divides the other, blocks hold whole blocks,
    whatever the sizes behind them.
    """
    length, axis = source
    if axis is None:
        return None
    if length % size != 0 and size % length != 0:
        visit.lock(axis, _MIXES)
        return None
    labels = visit.new_labels(size)
    shared = max(length, size)
    visit.tie(axis.repeat(shared // length), labels.repeat(shared // size))
    return labels


def _spread(sources: Sequence[tuple[int, Axis]], carrier: int) -> Axis:
    """Return the labels of one axis at every position of the merged run."""
    sizes = [size for size, _ in sources]
    labels = sources[carrier][1]
    assert labels is not None  # the caller chose a labelled axis
    view = labels.reshape([size if index == carrier else 1 for index, size in enumerate(sizes)])
    return np.broadcast_to(view, sizes).reshape(-1).copy()


def _rewrite_target(edit: Edit) -> None:
    """New literal sizes; -1, 0 and sizes that follow the batch are left as they are.

    Where a size that is computed no longer fits, -1 takes its place, and a number the place of -1.
    """
    data, result = edit.operand(0), edit.result()
    target = edit.partial_value(1)
    if not result.shrinks or target is None:
        return
    shape = result.shape
    copies = not edit.integer("allowzero", 0)
    wanted = [
        size
        if size in (None, -1) or (size == 0 and copies and data.size(index) == result.size(index))
        else result.size(index)
        for index, size in enumerate(target)
    ]
    free = [index for index, size in enumerate(wanted) if size is None]
    if len(free) == 1 and -1 in wanted and result.positions(free[0]) is not None:
        wanted[wanted.index(-1)] = result.size(wanted.index(-1))
    if wanted == list(target) and all(result.positions(index) is None for index in free):
        return
    if not free:
        edit.set_operand(1, [size for size in wanted if size is not None])
    elif len(free) == 1 and -1 not in wanted and 0 not in shape:
        edit.set_operand(1, [-1 if size is None else size for size in wanted])
    else:
        edit.set_operand(1, wanted)


@rule(
    "Reshape", rewrite=_rewrite_target, keeps_zero=True, moves="view", indices=(1,), gradient="engine",
    note="follows positions in row-major order",
)  # fmt: skip
def reshape(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    target = visit.partial_value(1)
    if target is None and not data.constant and any(axis is not None for axis in data.axes):
        raise LockNodeError("reshapes to sizes that are computed while running")
    dynamic = visit.result_dynamic()
    axes = reshaped_axes(visit, data, shape, dynamic)
    # One size that is computed can be left to follow from the others instead, if they are known.
    others = target is not None and not any(size == -1 and dynamic[index] for index, size in enumerate(target))
    follows = target is not None and target.count(None) == 1 and others
    for index, axis in enumerate(axes):
        if target is None or (target[index] is None and not follows):
            visit.lock(axis, "reshapes it to a size that is computed while running")
    visit.set_result(axes)


def _rewrite_squeeze(edit: Edit) -> None:
    """Without axes every axis of size one goes, also one that has just shrunk to that."""
    data, result = edit.operand(0), edit.result()
    if edit.operator != "Squeeze" or edit.has_operand(1) or edit.integers("axes"):
        return
    if result.shrinks:
        axes = [index for index, size in enumerate(data.shape) if size == 1]
        if edit.opset_version < 13:
            edit.set_integers("axes", axes)
        else:
            edit.set_operand(1, axes)


@rule("Flatten", keeps_zero=True, moves="view", gradient="engine", note="follows positions in row-major order")
@rule(
    "Squeeze", "Unsqueeze", rewrite=_rewrite_squeeze, keeps_zero=True, moves="view", indices=(1,), gradient="engine",
    note="drops or adds axes of size one",
)  # fmt: skip
def flatten(visit: Visit) -> None:
    visit.set_result(reshaped_axes(visit, visit.operand(0), visit.result_shape(), visit.result_dynamic()))


@rule("Transpose", keeps_zero=True, moves="order", gradient="engine", note="permutes the axes")
def transpose(visit: Visit) -> None:
    data = visit.operand(0)
    order = visit.integers("perm") or list(reversed(range(data.rank)))
    visit.set_result([data.axes[index] for index in order])
