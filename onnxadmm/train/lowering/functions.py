"""Lowerings of functions of one number."""

import math

import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, unknown_shape
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh")
def lower_by_slope(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The function itself on a stopped input, plus (x - stop(x)) times its derivative.

    The derivative is bounded, so that it does not turn the zero beside it into NaN where it has a pole.
    """
    write = Writer(space, node)
    stopped = write.stop(node.input[0])
    result = write.add(node.op_type, stopped)
    bounded = write.add("Clip", _slope(write, node.op_type, stopped), write.scalar(-3e38), write.scalar(3e38))
    return write.finish(write.with_slope(node.input[0], stopped, result, bounded))


def _slope(write: Writer, operator: str, x: str) -> str:
    """f'(x): 1/(1 + x^2) for Atan, 1/sqrt(1 - x^2) for Asin, and so on."""
    if operator in ("Sinh", "Cosh"):
        return write.add("Cosh" if operator == "Sinh" else "Sinh", x)
    square, one = write.add("Mul", x, x), write.scalar(1.0)
    if operator == "Atan":
        return write.add("Reciprocal", write.add("Add", square, one))
    if operator == "Atanh":
        return write.add("Reciprocal", write.add("Sub", one, square))
    if operator == "Asinh":
        under = write.add("Add", square, one)
    else:
        under = write.add("Sub", square, one) if operator == "Acosh" else write.add("Sub", one, square)
    slope = write.add("Reciprocal", write.add("Sqrt", under))
    return write.add("Neg", slope) if operator == "Acos" else slope


@lowers("Tan")
def lower_tan(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """sin(x) / cos(x)"""
    write = Writer(space, node)
    return write.finish(write.add("Div", write.add("Sin", node.input[0]), write.add("Cos", node.input[0])))


@lowers("Gelu")
def lower_gelu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x/2 (1 + erf(x/sqrt 2)), or x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the engine's own form of it."""
    write = Writer(space, node)
    return write.finish(gelu(write, node.input[0], tanh=attribute(node, "approximate", "none") == "tanh"))


def gelu(write: Writer, value: str, *, tanh: bool) -> str:
    if not tanh:
        return write.add("Gelu", value, domain="com.microsoft")
    cube = write.add("Mul", write.add("Mul", value, value), value)
    inner = write.add("Add", value, write.scale(cube, 0.044715))
    bend = write.add("Tanh", write.scale(inner, math.sqrt(2.0 / math.pi)))
    return write.add("Mul", write.scale(value, 0.5), write.add("Add", bend, write.scalar(1.0)))


@lowers("Swish")
def lower_swish(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x sigmoid(alpha x)"""
    write = Writer(space, node)
    gate = write.add("Sigmoid", write.scale(node.input[0], attribute(node, "alpha", 1.0)))
    return write.finish(write.add("Mul", node.input[0], gate))


@lowers("ThresholdedRelu")
def lower_thresholded_relu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x where x > alpha, else 0"""
    write = Writer(space, node)
    above = write.add("Greater", write.stop(node.input[0]), write.scalar(attribute(node, "alpha", 1.0)))
    return write.finish(write.add("Where", above, node.input[0], write.scalar(0.0)))


@lowers("Shrink")
def lower_shrink(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x + bias where x < -lambd, x - bias where x > lambd, else 0"""
    write = Writer(space, node)
    stopped = write.stop(node.input[0])
    bias, lambd = attribute(node, "bias", 0.0), attribute(node, "lambd", 0.5)
    low = write.add("Less", stopped, write.scalar(-lambd))
    high = write.add("Greater", stopped, write.scalar(lambd))
    up = write.add("Add", node.input[0], write.scalar(bias))
    down = write.add("Sub", node.input[0], write.scalar(bias))
    rest = write.add("Where", high, down, write.scalar(0.0))
    return write.finish(write.add("Where", low, up, rest))


@lowers("Max", "Min")
def lower_extremum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Max or Min of several inputs: of two at a time."""
    if len(node.input) == 2:
        return [node]
    write = Writer(space, node)
    if len(node.input) == 1:
        return write.finish(write.add("Identity", node.input[0]))
    value = node.input[0]
    for name in node.input[1:]:
        value = write.add(node.op_type, value, name)
    return write.finish(value)


@lowers("CastLike")
def lower_cast_like(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A Cast to the type of the second input."""
    kind = space.element_type(node.input[1])
    if not kind:
        raise unknown_shape(node, node.input[1])
    write = Writer(space, node)
    return write.finish(write.add("Cast", node.input[0], to=kind))
