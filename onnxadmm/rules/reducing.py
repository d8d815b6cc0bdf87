"""Operators that work along axes: reductions, softmax, sorting, running sums."""

from collections.abc import Iterable, Sequence

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.node import NodeView
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit

_ORDERS = "orders its positions"
_MIXES = "mixes along its axes, which lock; passes the others"
_SUMS = "sums along its axes, where a removed position adds nothing; passes the others"
_AVERAGES = "sums along its axes and divides by their length, which the rewrite makes up for; passes the others"


@rule(
    "Softmax", "LogSoftmax", effect="inexact", gradient="engine",
    note="mixes along its axis, which locks; passes the others",
)  # fmt: skip
def softmax(visit: Visit) -> None:
    """Below opset 13 the axis and all behind it are one."""
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", -1 if visit.opset_version >= 13 else 1, data.rank)
    mixed = range(axis, data.rank) if visit.opset_version < 13 else [axis]
    axes = enumerate(data.axes)
    visit.set_result([visit.lock_unless_inexact(axis) if index in mixed else axis for index, axis in axes])


@rule("Hardmax", effect="locks", note="finds the largest along its axis, which locks; passes the others")
def hardmax(visit: Visit) -> None:
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", -1 if visit.opset_version >= 13 else 1, data.rank)
    mixed = range(axis, data.rank) if visit.opset_version < 13 else [axis]
    for index in mixed:
        visit.lock(data.axes[index], _ORDERS)
    visit.set_result([None if index in mixed else labels for index, labels in enumerate(data.axes)])


@rule("ReduceLogSumExp", effect="inexact", indices=(1,), gradient="engine", note=_MIXES)
@rule("ReduceMax", "ReduceMin", "ReduceProd", effect="inexact", indices=(1,), computes_sizes=True, note=_MIXES)
def reduction(visit: Visit) -> None:
    data = visit.operand(0)
    reduced = _reduced(visit, data.rank)
    for index in sorted(reduced):
        visit.lock_unless_inexact(data.axes[index])
    _set_reduced(visit, data.axes, reduced)


def _rewrite_mean(edit: Edit) -> None:
    """What is left is divided by fewer: the sum is the same, the mean is kept / all times too large."""
    if not edit.operand(0).shrinks:
        return
    axes = edit.operand_integers(1) if edit.has_operand(1) else edit.integers("axes")
    _scale_mean(edit, _positive(edit, axes, edit.operand(0).rank))


def _rewrite_mean_of_space(edit: Edit) -> None:
    _scale_mean(edit, range(2, edit.operand(0).rank))


def _scale_mean(edit: Edit, axes: Iterable[int]) -> None:
    data = edit.operand(0)
    factor = 1.0
    for axis in axes:
        if data.positions(axis) is not None:
            factor *= data.size(axis) / data.shape[axis]
    if factor != 1:
        edit.scale_result(factor)


@rule("ReduceMean", rewrite=_rewrite_mean, indices=(1,), gradient="engine", note=_AVERAGES)
@rule("ReduceSum", indices=(1,), computes_sizes=True, gradient="engine", note=_SUMS)
@rule("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare", indices=(1,), note=_SUMS)
def total(visit: Visit) -> None:
    data = visit.operand(0)
    reduced = _reduced(visit, data.rank)
    for index in sorted(reduced):
        if data.constant:
            visit.lock_unless_inexact(data.axes[index])
        else:
            visit.mark_summed(data, index)
    _set_reduced(visit, data.axes, reduced)


@rule("GlobalAveragePool", rewrite=_rewrite_mean_of_space, gradient="engine", note=_AVERAGES)
@rule("GlobalLpPool", note=_SUMS)
def total_of_space(visit: Visit) -> None:
    """``[N, C, ...]`` -> ``[N, C, 1...]``; behind a transposition what is space here are features."""
    data = visit.operand(0)
    for index in range(2, data.rank):
        if data.constant:
            visit.lock_unless_inexact(data.axes[index])
        else:
            visit.mark_summed(data, index)
    visit.set_result([*data.axes[:2], *([None] * (data.rank - 2))])


def _reduced(visit: Visit, rank: int) -> set[int]:
    """Return the axes that are reduced: all where none is named, if not said otherwise."""
    axes = visit.require_integers(1, "axes") if visit.has_operand(1) else visit.integers("axes")
    return _positive(visit, axes, rank)


def _positive(node: NodeView, axes: Sequence[int] | None, rank: int) -> set[int]:
    """Return axes counted from the front; all where none is named, if not said otherwise."""
    if not axes:
        axes = [] if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    return {axis % rank for axis in axes}


def _set_reduced(visit: Visit, axes: tuple[Axis, ...], reduced: set[int]) -> None:
    if visit.integer("keepdims", 1):
        visit.set_result([None if index in reduced else labels for index, labels in enumerate(axes)])
    else:
        visit.set_result([labels for index, labels in enumerate(axes) if index not in reduced])


@rule(
    "ArgMax", "ArgMin", effect="locks", gradient="zero",
    note="returns positions along its axis, which locks; passes the others",
)  # fmt: skip
def arguments(visit: Visit) -> None:
    data = visit.operand(0)
    axis = visit.axis_attribute("axis", 0, data.rank)
    visit.lock(data.axes[axis], "returns its positions")
    _set_reduced(visit, data.axes, {axis})


@rule(
    "TopK", effect="locks", indices=(1,), gradient="engine",
    note="orders along its axis, which locks; passes the others",
)  # fmt: skip
def largest(visit: Visit) -> None:
    data = visit.operand(0)
    along = visit.axis_attribute("axis", -1, data.rank)
    visit.lock(data.axes[along], _ORDERS)
    for result in range(2):
        visit.set_result([None if index == along else axis for index, axis in enumerate(data.axes)], index=result)


@rule("CumSum", effect="locks", indices=(1,), note="sums up along its axis, which locks; passes the others")
def running_sum(visit: Visit) -> None:
    data = visit.operand(0)
    (axis,) = visit.require_integers(1, "axis")
    along = axis % data.rank
    visit.lock(data.axes[along], "sums up along it")
    visit.set_result([None if index == along else labels for index, labels in enumerate(data.axes)])
