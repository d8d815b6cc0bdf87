"""LSTM, GRU and RNN: a unit is a hidden position, with all its gates, in every direction."""

import numpy as np

from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.labels import LabelArray
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_PEEPHOLES = 3
_FIRST_SCALE = 8  # operands of DynamicQuantizeLSTM from here on are scales and zero points
_BATCH = "takes it as the batch"


def _rewrite_hidden_size(edit: Edit) -> None:
    recurrence = edit.operand(2)
    if recurrence.positions(2) is not None:
        edit.set_integer("hidden_size", recurrence.size(2))


@rule(
    "LSTM", "GRU", "RNN", rewrite=_rewrite_hidden_size, weights=(1, 2), vectors=(3,), indices=(4,),
    note="hidden positions go with all their gates",
)  # fmt: skip
def recurrence(visit: Visit) -> None:
    """X ``[T, B, I]``, W ``[D, G*H, I]``, R ``[D, G*H, H]``, B ``[D, 2*G*H]``, states ``[D, B, H]``, P ``[D, 3*H]``.

    Y is ``[T, D, B, H]``, the last states ``[D, B, H]``.
    """
    gates = _GATES[visit.operator]
    if not (visit.is_constant(1) and visit.is_constant(2)):
        raise LockNodeError("has weights that are computed while running")
    data, weight, recurrent = visit.operand(0), visit.operand(1), visit.operand(2)
    hidden = recurrent.axes[2]
    if hidden is None:
        raise LockNodeError("has a single hidden position")
    if visit.integer("layout", 0):
        raise LockNodeError("has its batch first, which onnxruntime does not run")
    visit.lock(data.axes[0], "runs along it")
    visit.lock(data.axes[1], _BATCH)
    visit.keep_whole(weight, (0,))
    visit.keep_whole(recurrent, (0,))
    reading = visit.tie(data.axes[2], weight.axes[2], "reads features that stay")
    visit.mark_reader(weight, 2)
    visit.mark_reader(recurrent, 2)
    _tie_gates(visit, weight.axes[1], hidden, gates)
    _tie_gates(visit, recurrent.axes[1], hidden, gates)
    if visit.has_operand(3):
        bias = visit.operand(3)
        visit.keep_whole(bias, (0,))
        _tie_gates(visit, bias.axes[1], hidden, 2 * gates)
    for index in (5, 6):
        if visit.has_operand(index):
            state = visit.operand(index)
            visit.lock_operand(state, _BATCH, except_axes=(2,))
            visit.tie(state.axes[2], hidden, "starts from a state that stays")
    if visit.has_operand(7):
        peepholes = visit.operand(7)
        visit.keep_whole(peepholes, (0,))
        _tie_gates(visit, peepholes.axes[1], hidden, _PEEPHOLES)
    for result in range(visit.result_count):
        if visit.has_result(result):
            rank = len(visit.result_shape(result))
            axes: list[Axis] = [None] * (rank - 1)
            visit.set_result([*axes, hidden], index=result)
    directions, size = weight.shape[0], recurrent.shape[2]
    steps = data.shape[0]
    visit.add_macs([steps * directions * gates, size, data.shape[2]], [None, hidden, reading])
    visit.add_macs([steps * directions * gates, size, size], [None, hidden, hidden])


@rule(
    "DynamicQuantizeLSTM", domain="com.microsoft", effect="locks", shape=foreign_shapes.quantised_recurrence,
    note="takes scales from all of its input, and of its hidden state at every step, which locks both",
)  # fmt: skip
def quantised_recurrence(visit: Visit) -> None:
    """As LSTM, with weights of bytes ``[D, I, 4 H]``, ``[D, H, 4 H]``; scale and zero point of both stand last.

    A gate could hide features of the input from its scale, but nothing hides a hidden position.
    """
    data, weight, recurrent = visit.operand(0), visit.operand(1), visit.operand(2)
    visit.lock_operand(data, "takes its scale from all of it")
    for index in range(1, visit.operand_count):
        if visit.has_operand(index):
            visit.lock_operand(visit.operand(index), "takes a scale from the hidden state at every step")
            if index >= _FIRST_SCALE:
                visit.mark_scale(visit.operand(index))
    visit.mark_weight(weight)
    visit.mark_weight(recurrent)
    for result in range(visit.result_count):
        if visit.has_result(result):
            visit.set_result([None] * len(visit.result_shape(result)), index=result)
    directions, inner, gates = weight.shape
    visit.add_macs([data.shape[0] * directions * gates, inner + recurrent.shape[1]], [None, None])


def _tie_gates(visit: Visit, axis: Axis, hidden: LabelArray, count: int) -> None:
    """Tie an axis that holds the hidden positions ``count`` times over, gate after gate."""
    visit.tie(axis, np.tile(hidden, count))
