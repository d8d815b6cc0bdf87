"""Bytes that a graph turns into floats by hand, as ``Mul(Sub(Cast(q), point), scale)`` does, or a Div by the scale."""

from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxadmm.graph.constants import constant


@dataclass(frozen=True)
class Shift:
    """Stored bytes, and the number among them that stands for zero.

    Attributes:
        weight: the bytes.
        point: what is taken off: a constant, one number or one per position of an axis.
        axis: of the weight.
    """

    weight: onnx_ir.Value
    point: onnx_ir.Value
    axis: int


def shift_of(node: onnx_ir.Node) -> Shift | None:
    """Return what a Sub takes off bytes; None where it does something else, or no byte comes out as zero."""
    if node.op_type != "Sub" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return None
    weight, point = (_stored(value) for value in node.inputs)
    if weight is None or point is None:
        return None
    array, shift = constant(weight), constant(point)
    if array is None or shift is None or array.dtype.kind not in "iu" or array.dtype.itemsize > 1:
        return None
    limits = np.iinfo(array.dtype)
    if shift.dtype.kind not in "iuf" or not ((shift >= limits.min) & (shift <= limits.max) & (shift % 1 == 0)).all():
        return None
    if shift.size == 1:
        return Shift(weight, point, 0)
    axes = [axis for axis, length in enumerate(shift.shape, array.ndim - shift.ndim) if length > 1]
    if shift.ndim > array.ndim or len(axes) != 1 or array.shape[axes[0]] != shift.size:
        return None
    return Shift(weight, point, axes[0])


def divides_by_constant(node: onnx_ir.Node) -> bool:
    """Whether a Div leaves zeros zeros, since no divisor is zero."""
    if node.op_type != "Div" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return False
    divisor = None if node.inputs[1] is None else constant(node.inputs[1])
    return divisor is not None and divisor.dtype.kind in "iuf" and bool((divisor != 0).all())


def _stored(value: onnx_ir.Value | None) -> onnx_ir.Value | None:
    """Return the constant behind Casts."""
    while value is not None and (node := value.producer()) is not None and node.op_type == "Cast":
        value = node.inputs[0]
    return value
