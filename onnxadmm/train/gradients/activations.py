"""Gradients of functions of one number."""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute

#: Slope of a ramp that is a step for all but the smallest numbers.
STEEP = 1e38
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@differentiates("Identity")
def identity(_: Backward, __: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dX = dY"""
    return [upstream[0]]


@differentiates("Cast")
def cast(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY in the type of X; whole numbers carry none."""
    kind = write.kind(node.input[0])
    if kind not in _FLOATS or write.kind(node.output[0]) not in _FLOATS:
        return [None]
    return [write.add("Cast", upstream[0], to=kind)]


@differentiates("Neg")
def negative(write: Backward, _: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """-dY"""
    return [write.add("Neg", upstream[0])]


@differentiates("Abs")
def absolute(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY sign(x)"""
    return [write.add("Mul", upstream[0], write.add("Sign", node.input[0]))]


@differentiates("Relu")
def relu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY [y > 0]"""
    return [write.add("Mul", upstream[0], step(write, node.output[0]))]


@differentiates("LeakyRelu")
def leaky_relu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY ([x > 0] (1 - alpha) + alpha)"""
    alpha = attribute(node, "alpha", 0.01)
    rise = write.add("Mul", step(write, node.input[0]), write.scalar(1.0 - alpha))
    return [write.add("Mul", upstream[0], write.add("Add", rise, write.scalar(alpha)))]


def step(write: Backward, value: str) -> str:
    """1 where a value is above 0, else 0, as min(max(1e38 x, 0), 1): a comparison costs more."""
    return write.add("HardSigmoid", value, alpha=STEEP, beta=0.0)


@differentiates("Clip")
def clip(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY [low < y < high], of y and not x, which need not be kept"""
    y, gaps = node.output[0], []
    for index, name in enumerate(node.input[1:]):
        limit = write.value(name)
        if name and (limit is None or np.isfinite(limit)):
            apart = (y, name) if index == 0 else (name, y)
            gaps.append(y if index == 0 and limit == 0 else write.add("Sub", *apart))
    within = write.add("Mul", *gaps) if len(gaps) == 2 else (gaps or [None])[0]
    return [upstream[0] if within is None else write.add("Mul", upstream[0], step(write, within)), None, None][
        : len(node.input)
    ]


@differentiates("Exp")
def exponential(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY y"""
    return [write.add("Mul", upstream[0], node.output[0])]


@differentiates("Log")
def logarithm(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY / x"""
    return [write.add("Div", upstream[0], node.input[0])]


@differentiates("Sqrt")
def square_root(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY / (2 y)"""
    return [write.add("Div", write.scale(upstream[0], 0.5), node.output[0])]


@differentiates("Reciprocal")
def reciprocal(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """-dY y^2"""
    return [write.add("Neg", write.add("Mul", upstream[0], write.square(node.output[0])))]


@differentiates("Sin")
def sine(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY cos x"""
    return [write.add("Mul", upstream[0], write.add("Cos", node.input[0]))]


@differentiates("Cos")
def cosine(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """-dY sin x"""
    return [write.add("Neg", write.add("Mul", upstream[0], write.add("Sin", node.input[0])))]


@differentiates("Tanh")
def hyperbolic_tangent(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY (1 - y^2)"""
    slope = write.add("Sub", write.scalar(1.0), write.square(node.output[0]))
    return [write.add("Mul", upstream[0], slope)]


@differentiates("Sigmoid")
def sigmoid(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY y (1 - y)"""
    slope = write.add("Mul", node.output[0], write.add("Sub", write.scalar(1.0), node.output[0]))
    return [write.add("Mul", upstream[0], slope)]


@differentiates("Erf")
def error_function(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY 2 / sqrt(pi) exp(-x^2)"""
    bell = write.add("Exp", write.add("Neg", write.square(node.input[0])))
    return [write.add("Mul", upstream[0], write.scale(bell, 2.0 / math.sqrt(math.pi)))]


@differentiates("Gelu", domain="com.microsoft")
def gelu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY (P(x) + x p(x)), P the distribution of a normal number and p its density"""
    return [write.add("Mul", upstream[0], _gelu_slope(write, node.input[0]))]


@differentiates("BiasGelu", domain="com.microsoft")
def bias_gelu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """As Gelu's, of x + b."""
    both = write.add("Add", node.input[0], node.input[1])
    return _with_bias(write, node, write.add("Mul", upstream[0], _gelu_slope(write, both)))


def _gelu_slope(write: Backward, x: str) -> str:
    area = write.add("Erf", write.scale(x, math.sqrt(0.5)))
    area = write.scale(write.add("Add", area, write.scalar(1.0)), 0.5)
    bell = write.add("Exp", write.scale(write.square(x), -0.5))
    return write.add("Add", area, write.add("Mul", x, write.scale(bell, 1.0 / math.sqrt(2.0 * math.pi))))


@differentiates("QuickGelu", domain="com.microsoft")
def quick_gelu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY s (1 + a x (1 - s)), s = sigmoid(a x)"""
    scaled = write.scale(node.input[0], attribute(node, "alpha", 1.702))
    gate = write.add("Sigmoid", scaled)
    rest = write.add("Mul", scaled, write.add("Sub", write.scalar(1.0), gate))
    slope = write.add("Mul", gate, write.add("Add", rest, write.scalar(1.0)))
    return [write.add("Mul", upstream[0], slope)]


@differentiates("FastGelu", domain="com.microsoft")
def fast_gelu(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY / 2 (1 + t + x (1 - t^2) u'), t = tanh u, u = sqrt(2 / pi) (x + 0.044715 x^3); of x + b with a bias"""
    biased = len(node.input) > 1 and bool(node.input[1])
    x = write.add("Add", node.input[0], node.input[1]) if biased else node.input[0]
    square, root = write.square(x), math.sqrt(2.0 / math.pi)
    inner = write.add("Add", write.scale(square, root * 0.044715), write.scalar(root))
    bend = write.add("Tanh", write.add("Mul", x, inner))
    slope = write.add("Add", write.scale(square, 3.0 * root * 0.044715), write.scalar(root))
    rise = write.add("Sub", write.scalar(1.0), write.square(bend))
    rise = write.add("Mul", write.add("Mul", x, rise), slope)
    whole = write.add("Add", rise, write.add("Add", bend, write.scalar(1.0)))
    return _with_bias(write, node, write.add("Mul", upstream[0], write.scale(whole, 0.5)))


def _with_bias(write: Backward, node: onnx.NodeProto, gradient: str) -> Made:
    if len(node.input) < 2 or not node.input[1]:
        return [gradient]
    return [gradient, write.matched(gradient, node.output[0], node.input[1]) if write.wants(1) else None]
