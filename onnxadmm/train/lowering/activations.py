"""Lowerings of activations and of other element-wise operators."""

import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("PRelu")
def lower_prelu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) - slope * max(-x, 0)"""
    write = Writer(space, node)
    negative = write.add("Relu", write.add("Neg", node.input[0]))
    scaled = write.add("Mul", negative, node.input[1])
    return write.finish(write.add("Sub", write.add("Relu", node.input[0]), scaled))


@lowers("Elu")
def lower_elu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + alpha (exp(min(x, 0)) - 1)"""
    return _exponential(space, node, alpha=attribute(node, "alpha", 1.0), divisor=1.0, gamma=1.0)


@lowers("Celu")
def lower_celu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)"""
    alpha = attribute(node, "alpha", 1.0)
    return _exponential(space, node, alpha=alpha, divisor=alpha, gamma=1.0)


@lowers("Selu")
def lower_selu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """gamma (max(x, 0) + alpha (exp(min(x, 0)) - 1))"""
    alpha = attribute(node, "alpha", 1.6732632423543772)
    return _exponential(space, node, alpha=alpha, divisor=1.0, gamma=attribute(node, "gamma", 1.0507009873554805))


def _exponential(space: Workspace, node: onnx.NodeProto, *, alpha: float, divisor: float, gamma: float) -> Nodes:
    write = Writer(space, node)
    # min(x, 0) written as -max(-x, 0): exp then never overflows.
    low = write.add("Neg", write.add("Relu", write.add("Neg", node.input[0])))
    grown = write.add("Exp", write.add("Mul", low, write.scalar(1.0 / divisor)))
    bend = write.add("Mul", write.add("Sub", grown, write.scalar(1.0)), write.scalar(alpha * gamma))
    line = write.add("Mul", write.add("Relu", node.input[0]), write.scalar(gamma))
    return write.finish(write.add("Add", line, bend))


@lowers("Softplus")
def lower_softplus(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + log(1 + exp(-|x|))"""
    write = Writer(space, node)
    return write.finish(_softplus(write, node.input[0]))


def _softplus(write: Writer, value: str) -> str:
    tail = write.add("Exp", write.add("Neg", write.add("Abs", value)))
    log = write.add("Log", write.add("Add", tail, write.scalar(1.0)))
    return write.add("Add", write.add("Relu", value), log)


@lowers("Mish")
def lower_mish(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x tanh(softplus(x))"""
    write = Writer(space, node)
    return write.finish(write.add("Mul", node.input[0], write.add("Tanh", _softplus(write, node.input[0]))))


@lowers("Softsign")
def lower_softsign(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x / (1 + |x|)"""
    write = Writer(space, node)
    size = write.add("Add", write.add("Abs", node.input[0]), write.scalar(1.0))
    return write.finish(write.add("Div", node.input[0], size))


@lowers("HardSigmoid")
def lower_hard_sigmoid(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """min(max(alpha x + beta, 0), 1)"""
    write = Writer(space, node)
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return write.finish(_hard_sigmoid(write, node.input[0], alpha, beta))


@lowers("HardSwish")
def lower_hard_swish(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x min(max(x / 6 + 1/2, 0), 1)"""
    write = Writer(space, node)
    return write.finish(write.add("Mul", node.input[0], _hard_sigmoid(write, node.input[0], 1.0 / 6.0, 0.5)))


def _hard_sigmoid(write: Writer, value: str, alpha: float, beta: float) -> str:
    line = write.add("Add", write.add("Mul", value, write.scalar(alpha)), write.scalar(beta))
    return write.add("Clip", line, write.scalar(0.0), write.scalar(1.0))


@lowers("Sum")
def lower_sum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Additions in a row."""
    write = Writer(space, node)
    return write.finish(_sum(write, node))


@lowers("Mean")
def lower_mean(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Additions in a row, then a division by their number."""
    write = Writer(space, node)
    return write.finish(write.add("Mul", _sum(write, node), write.scalar(1.0 / len(node.input))))


def _sum(write: Writer, node: onnx.NodeProto) -> str:
    if len(node.input) == 1:
        return write.add("Identity", node.input[0])
    total = str(node.input[0])
    for name in node.input[1:]:
        total = write.add("Add", total, name)
    return total
