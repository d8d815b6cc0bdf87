"""Operators that only move positions about: reshape, transpose, squeeze, flatten."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Operand, Visit, product

_Run = tuple[list[int], list[int]]


def runs(before: Sequence[int], after: Sequence[int]) -> list[_Run]:
    """Cut two shapes of equal size into the shortest runs of axes with equal products; axes of size one are left out.

    ``(2, 3, 4, 5)`` and ``(2, 12, 5)`` give ``[([0], [0]), ([1, 2], [1]), ([3], [2])]``.

    Raises:
        LockNodeError: the shapes hold no positions or differ in size.
    """
    if product(before) != product(after) or product(before) == 0:
        raise LockNodeError("reshapes a size that is not known")
    sources = [index for index, size in enumerate(before) if size > 1]
    targets = [index for index, size in enumerate(after) if size > 1]
    found: list[_Run] = []
    while sources and targets:
        left, right = [sources.pop(0)], [targets.pop(0)]
        left_size, right_size = before[left[0]], after[right[0]]
        while left_size != right_size:
            if left_size < right_size:
                left.append(sources.pop(0))
                left_size *= before[left[-1]]
            else:
                right.append(targets.pop(0))
                right_size *= after[right[-1]]
        found.append((left, right))
    return found


def regroup(visit: Visit, data: Operand, shape: Sequence[int], dynamic: Sequence[bool]) -> list[Axis]:
    """Return the axes of ``data`` seen as ``shape``, row-major order kept.

    An axis that becomes one axis keeps its labels; several of which one carries labels become one whose
    labels are repeated; everything else is left to be factored when all locks are known.
    """
    result: list[Axis] = [None] * len(shape)
    for left, right in runs(data.shape, shape):
        sources = [(data.shape[index], data.axes[index]) for index in left]
        labelled = [index for index, (_, axis) in enumerate(sources) if axis is not None]
        if not labelled:
            continue
        if len(left) == 1 and len(right) == 1:
            result[right[0]] = data.axes[left[0]]
        elif any(dynamic[index] for index in right):
            before = visit.facts.shapes.dynamic(data.name) or [True] * data.rank
            leads_free = dynamic[right[0]] or before[left[0]]
            for index, (_, axis) in enumerate(sources):
                if index > 0 or leads_free:
                    visit.lock(axis, "mixes it with a size that is not known")
            result[right[0]] = None if leads_free else _lead(visit, sources[0], shape[right[0]])
        elif len(right) == 1 and len(labelled) == 1:
            result[right[0]] = _spread(sources, labelled[0])
        else:
            targets = [visit.fresh(shape[index]) for index in right]
            for index, labels in zip(right, targets, strict=True):
                result[index] = labels
            visit.factor(sources, [(shape[index], labels) for index, labels in zip(right, targets, strict=True)])
    return result


def _lead(visit: Visit, source: tuple[int, Axis], size: int) -> Axis:
    """Return the labels of the first axis of a run whose later axes have free sizes.

    The first axes count blocks of the run: where one count divides the other, blocks hold whole blocks,
    whatever the sizes behind them.
    """
    length, axis = source
    if axis is None:
        return None
    if length % size != 0 and size % length != 0:
        visit.lock(axis, "mixes it with a size that is not known")
        return None
    labels = visit.fresh(size)
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
    """New literal sizes; -1, 0 and sizes that follow the batch are left as they are."""
    data, result = edit.operand_name(0), edit.result_name()
    target = edit.partial(1)
    if not edit.changed(result) or target is None:
        return
    shape = edit.shape(result)
    copies = not edit.integer("allowzero", 0)
    wanted = [
        size
        if size in (None, -1) or (size == 0 and copies and edit.size(data, index) == edit.size(result, index))
        else edit.size(result, index)
        for index, size in enumerate(target)
    ]
    if wanted == list(target):
        return
    free = [index for index, size in enumerate(wanted) if size is None]
    if not free:
        edit.set_operand(1, [size for size in wanted if size is not None])
    elif len(free) == 1 and -1 not in wanted and 0 not in shape:
        edit.set_operand(1, [-1 if size is None else size for size in wanted])
    else:
        edit.set_elements(1, wanted)


@rule("Reshape", rewrite=_rewrite_target, keeps_zero=True, note="follows positions in row-major order")
def reshape(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    name = visit.node.outputs[0].name
    target = None if visit.node.inputs[1] is None else visit.facts.shapes.partial(visit.node.inputs[1].name or "")
    if target is None and not data.constant and any(axis is not None for axis in data.axes):
        raise LockNodeError("reshapes to sizes that are computed while running")
    axes = regroup(visit, data, shape, visit.facts.shapes.dynamic(name or "") or [True] * len(shape))
    for index, axis in enumerate(axes):
        if target is None or target[index] is None:
            visit.lock(axis, "reshapes it to a size that is computed while running")
    visit.give(axes)


def _rewrite_squeeze(edit: Edit) -> None:
    """Without axes every axis of size one goes, also one that has just shrunk to that."""
    data, result = edit.operand_name(0), edit.result_name()
    if edit.node.op_type != "Squeeze" or edit.operand_name(1) is not None or edit.integers("axes"):
        return
    if edit.changed(result):
        axes = [index for index, size in enumerate(edit.shape(data)) if size == 1]
        if edit.version < 13:
            edit.set_integers("axes", axes)
        else:
            edit.set_operand(1, axes)


@rule("Flatten", keeps_zero=True, note="follows positions in row-major order")
@rule("Squeeze", "Unsqueeze", rewrite=_rewrite_squeeze, keeps_zero=True, note="drops or adds axes of size one")
def flatten(visit: Visit) -> None:
    shape = visit.result_shape()
    name = visit.node.outputs[0].name
    visit.give(regroup(visit, visit.operand(0), shape, visit.facts.shapes.dynamic(name or "") or [True] * len(shape)))


@rule("Transpose", keeps_zero=True, note="permutes the axes")
def transpose(visit: Visit) -> None:
    data = visit.operand(0)
    order = visit.integers("perm") or list(reversed(range(data.rank)))
    visit.give([data.axes[index] for index in order])
