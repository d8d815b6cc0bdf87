"""Gradients of arithmetic with broadcasting: what an operand was repeated along is summed."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates


@differentiates("Add")
def add(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY to both"""
    return [_matched(write, node, index, upstream[0]) if write.wants(index) else None for index in (0, 1)]


@differentiates("Sub")
def subtract(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY and -dY"""
    first = _matched(write, node, 0, upstream[0]) if write.wants(0) else None
    second = write.add("Neg", _matched(write, node, 1, upstream[0])) if write.wants(1) else None
    return [first, second]


@differentiates("Mul")
def multiply(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY times the other"""
    return [
        _matched(write, node, index, write.add("Mul", upstream[0], node.input[1 - index]))
        if write.wants(index)
        else None
        for index in (0, 1)
    ]


@differentiates("Div")
def divide(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dA = dY / b, dB = -dY y / b"""
    share = write.add("Div", upstream[0], node.input[1])
    first = _matched(write, node, 0, share) if write.wants(0) else None
    second = None
    if write.wants(1):
        second = write.add("Neg", _matched(write, node, 1, write.add("Mul", share, node.output[0])))
    return [first, second]


@differentiates("Max", "Min")
def extremum(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY where the operand is the extremum; equal operands share it"""
    if len(node.input) == 1:
        return [upstream[0]]
    chosen = [write.add("Equal", name, node.output[0]) for name in node.input]
    kind = write.kind(node.output[0])
    counts = [write.add("Cast", mask, to=kind) for mask in chosen]
    number = counts[0]
    for count in counts[1:]:
        number = write.add("Add", number, count)
    share = write.add("Div", upstream[0], number)
    return [
        _matched(write, node, index, write.add("Mul", share, count)) if write.wants(index) else None
        for index, count in enumerate(counts)
    ]


@differentiates("Pow")
def power(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dX = dY e x^(e - 1), e a constant"""
    exponent = write.value(node.input[1])
    assert exponent is not None  # others are refused
    if (exponent == 2.0).all():
        slope = write.scale(node.input[0], 2.0)
    else:
        # Where e is 0 the slope is 0, whatever x is.
        less = write.array(np.where(exponent == 0, 1, exponent - 1).astype(exponent.dtype))
        slope = write.add("Mul", write.add("Pow", node.input[0], less), node.input[1])
    return [_matched(write, node, 0, write.add("Mul", upstream[0], slope)), None]


@differentiates("Where")
def where(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY to the operand that was chosen, 0 to the other"""
    zero = write.scalar(0.0)
    first = second = None
    if write.wants(1):
        first = _matched(write, node, 1, write.add("Where", node.input[0], upstream[0], zero))
    if write.wants(2):
        second = _matched(write, node, 2, write.add("Where", node.input[0], zero, upstream[0]))
    return [None, first, second]


def _matched(write: Backward, node: onnx.NodeProto, index: int, gradient: str) -> str:
    return write.matched(gradient, node.output[0], node.input[index])
