"""Which number stands for zero in a quantised weight, and where zeros stay zeros."""

from math import prod

import numpy as np
import onnx_ir

from onnxadmm.graph.by_hand import divides_by_constant, shift_of
from onnxadmm.graph.constants import constant
from onnxadmm.rules.facts import Facts, Operand, ZeroPoint
from onnxadmm.rules.node import LockNodeError


def state_zero_point(facts: Facts, weight: Operand, point: Operand | None, axis: int) -> None:
    """State which number stands for zero in a weight that is a constant or computed from constants.

    Args:
        facts: where it is stated.
        weight: an operand of a node.
        point: the operand of the same node that holds the zero point, one number or one per position of an axis.
        axis: that axis.

    Raises:
        LockNodeError: the zero point is computed while running, or another one belongs to the same weight, or the
            weight is moved about first and has one per channel.
    """
    if point is not None and point.name not in facts.constants:
        raise LockNodeError("has a zero point that is computed while running")
    shift = None if point is None else _array(facts, point.name)
    stated = None if point is None or shift is None or not shift.any() else ZeroPoint(point.name, axis)
    if weight.name not in facts.constants:
        if stated is not None and point is not None and prod(point.shape) > 1:
            raise LockNodeError("has zero points per channel of a weight that is moved about")
        for name in _sources(facts, weight.name, shift):
            _state(facts, name, stated)
        return
    _state(facts, weight.name, stated)


def state_by_hand(facts: Facts, node: onnx_ir.Node) -> None:
    """State what a Sub or a Div leaves zero on the way from bytes to floats; nothing for any other node.

    Raises:
        LockNodeError: the bytes have another zero point elsewhere.
    """
    shift = shift_of(node)
    if shift is not None and shift.weight.name in facts.constants and shift.point.name in facts.constants:
        _state(facts, shift.weight.name or "", ZeroPoint(shift.point.name or "", shift.axis))
        facts.scales.add(shift.point.name or "")
    elif not divides_by_constant(node):
        return
    facts.zeroed.add(node.outputs[0].name or "")


def _state(facts: Facts, weight: str, stated: ZeroPoint | None) -> None:
    known = facts.zero_points.setdefault(weight, stated)
    if known != stated:
        raise LockNodeError("reads a weight that has another zero point elsewhere")


def _sources(facts: Facts, name: str, shift: np.ndarray | None) -> list[str]:
    """Return the quantised constants behind a weight that is moved about.

    A float weight that is quantised while running has its zero where its own node puts it: there the two have to agree.
    """
    found: list[str] = []
    pending, seen = [name], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in facts.quantised:
            point = facts.quantised[current]
            other = None if point is None else _array(facts, point)
            if not _equal(shift, other):
                raise LockNodeError("reads a weight that is quantised with another zero point")
            facts.zeroed.add(current)
        elif current in facts.derived:
            node = facts.derived[current]
            pending.extend(value.name for value in node.inputs[: _data_count(node)] if value is not None and value.name)
        else:
            found.append(current)
    return found


def _data_count(node: onnx_ir.Node) -> int:
    """Return how many operands of a node are data; shapes and indices follow."""
    return len(node.inputs) if node.op_type in ("Concat", "Sum") else 1


def _equal(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return not any(array is not None and array.any() for array in (first, second))
    return np.array_equal(first.reshape(-1), second.reshape(-1))


def _array(facts: Facts, name: str) -> np.ndarray:
    value = facts.constants.get(name)
    array = None if value is None else constant(value)
    if array is None:
        raise LockNodeError("has a zero point that is computed while running")
    return array
