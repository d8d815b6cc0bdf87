"""Normalisations: over features, groups of channels, space or neighbours."""

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_MIXES = "normalises over it"


@rule(
    "InstanceNormalization", normalises=True, vectors=(1, 2),
    note="ties the channels to scale and shift; normalises over space, which locks",
)  # fmt: skip
def instance_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    visit.lock_operand(data, _MIXES, except_axes=(0, 1))
    channels = data.axes[1]
    for index in (1, 2):
        channels = visit.tie(channels, visit.operand(index).axes[0], "normalises channels that stay")
    visit.set_result([data.axes[0], channels, *([None] * (data.rank - 2))])


def _rewrite_group_count(edit: Edit) -> None:
    """Groups go as a whole, so that each keeps its size; with inexact pruning every group keeps channels."""
    data = edit.operand(0)
    groups = edit.integer("num_groups", 1)
    kept = data.positions(1)
    if kept is not None:
        edit.set_integer("num_groups", np.unique(kept // (data.shape[1] // groups)).size)


@rule(
    "GroupNormalization", rewrite=_rewrite_group_count, effect="inexact", normalises=True, vectors=(1, 2),
    note="whole groups may go; channels of a group may with inexact pruning, equally many of each",
)  # fmt: skip
def group_normalization(visit: Visit) -> None:
    """x ``[N, C, ...]``; scale and shift ``[groups]`` in opset 18 to 20, ``[C]`` from 21 on."""
    data = visit.operand(0)
    groups = visit.integer("num_groups", 1)
    visit.lock_operand(data, _MIXES, except_axes=(0, 1))
    channels = data.axes[1]
    parameters = [visit.operand(1), visit.operand(2)]
    for parameter in parameters:
        if parameter.shape[0] == data.shape[1]:
            channels = visit.tie(channels, parameter.axes[0], "normalises channels that stay")
    if channels is not None:
        blocks = channels.reshape(groups, -1)
        if visit.inexact and blocks.shape[1] > 1:
            visit.lock_unless_inexact(channels)
            visit.balance(blocks)
        else:
            for column in range(1, blocks.shape[1]):
                visit.tie(blocks[:, 0], blocks[:, column])
    for parameter in parameters:
        if parameter.shape[0] != data.shape[1]:
            if visit.inexact or channels is None:
                visit.lock(parameter.axes[0], "belongs to groups that stay")
            else:
                visit.tie(channels.reshape(groups, -1)[:, 0] if groups > 1 else None, parameter.axes[0])
    visit.set_result([data.axes[0], channels, *([None] * (data.rank - 2))])


@rule("LpNormalization", normalises=True, note="divides by a norm, to which a removed position adds nothing")
def norm_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    along = visit.axis_attribute("axis", -1, data.rank)
    if data.constant:
        visit.lock_unless_inexact(data.axes[along], _MIXES)
    else:
        visit.mark_summed(data, along)
    visit.set_result(data.axes)


@rule(
    "MeanVarianceNormalization", effect="inexact", normalises=True,
    note="normalises over its axes, which lock; passes the others",
)  # fmt: skip
def mean_variance_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    over = {axis % data.rank for axis in visit.integers("axes") or [0, 2, 3]}
    axes = enumerate(data.axes)
    visit.set_result([visit.lock_unless_inexact(axis, _MIXES) if index in over else axis for index, axis in axes])


@rule("LRN", effect="inexact", normalises=True, note="mixes neighbouring channels, which lock; passes space")
def local_response_normalization(visit: Visit) -> None:
    data = visit.operand(0)
    if data.rank < 2:
        raise LockNodeError("has no channels")
    visit.set_result([data.axes[0], visit.lock_unless_inexact(data.axes[1], "mixes neighbours"), *data.axes[2:]])
