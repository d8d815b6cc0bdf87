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
            for _, axis in sources:
                visit.lock(axis, "mixes it with a size that is not known")
        elif len(right) == 1 and len(labelled) == 1:
            result[right[0]] = _spread(sources, labelled[0])
        else:
            targets = [visit.fresh(shape[index]) for index in right]
            for index, labels in zip(right, targets, strict=True):
                result[index] = labels
            visit.factor(sources, [(shape[index], labels) for index, labels in zip(right, targets, strict=True)])
    return result


def _spread(sources: Sequence[tuple[int, Axis]], carrier: int) -> Axis:
    """Return the labels of one axis at every position of the merged run."""
    sizes = [size for size, _ in sources]
    labels = sources[carrier][1]
    assert labels is not None  # the caller chose a labelled axis
    view = labels.reshape([size if index == carrier else 1 for index, size in enumerate(sizes)])
    return np.broadcast_to(view, sizes).reshape(-1).copy()


def _rewrite_target(edit: Edit) -> None:
    """New literal sizes; -1, 0 and sizes that follow the batch are left as they are."""
    result = edit.result_name()
    target = edit.partial(1)
    if not edit.changed(result) or target is None:
        return
    shape = edit.shape(result)
    copies = 0 if not edit.integer("allowzero", 0) else None
    wanted = [
        edit.size(result, index) if size is not None and size not in (-1, copies) else size
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
        edit.set_known_elements(1, wanted)


@rule("Reshape", rewrite=_rewrite_target, keeps_zero=True, note="follows positions in row-major order")
def reshape(visit: Visit) -> None:
    data = visit.operand(0)
    shape = visit.result_shape()
    name = visit.node.outputs[0].name
    target = None if visit.node.inputs[1] is None else visit.facts.shapes.partial(visit.node.inputs[1].name or "")
    if target is None and not data.constant and any(axis is not None for axis in data.axes):
        raise LockNodeError("reshapes to sizes that are computed while running")
    visit.give(regroup(visit, data, shape, visit.facts.shapes.dynamic(name or "") or [True] * len(shape)))


@rule("Flatten", keeps_zero=True, note="follows positions in row-major order")
@rule("Squeeze", "Unsqueeze", keeps_zero=True, note="drops or adds axes of size one")
def flatten(visit: Visit) -> None:
    shape = visit.result_shape()
    name = visit.node.outputs[0].name
    visit.give(regroup(visit, visit.operand(0), shape, visit.facts.shapes.dynamic(name or "") or [True] * len(shape)))


@rule("Transpose", keeps_zero=True, note="permutes the axes")
def transpose(visit: Visit) -> None:
    data = visit.operand(0)
    order = visit.integers("perm") or list(reversed(range(data.rank)))
    visit.give([data.axes[index] for index in order])
