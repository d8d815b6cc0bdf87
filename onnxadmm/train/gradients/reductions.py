"""Gradients of what works along axes: sums, means, softmax."""

from collections.abc import Sequence
from math import prod

import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute


@differentiates("ReduceSum")
def reduce_sum(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY repeated"""
    return _repeated(write, node, upstream[0])


@differentiates("ReduceMean")
def reduce_mean(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY repeated, divided by how many there are"""
    count = prod(write.known(node.input[0])) / max(1, prod(write.known(node.output[0])))
    return _repeated(write, node, write.scale(upstream[0], 1.0 / max(count, 1.0)))


@differentiates("GlobalAveragePool")
def global_average_pool(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY repeated over the plane, divided by its size"""
    shape = write.known(node.input[0])
    share = write.scale(upstream[0], 1.0 / prod(shape[2:]))
    return [write.add("Expand", share, write.integers(*shape))]


@differentiates("ReduceLogSumExp")
def reduce_log_sum_exp(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY exp(x - y), with the axes kept"""
    share = write.add("Exp", write.add("Sub", node.input[0], node.output[0]))
    return [write.add("Mul", share, upstream[0]), *([None] * (len(node.input) - 1))]


def _repeated(write: Backward, node: onnx.NodeProto, gradient: str) -> Made:
    rest: list[str | None] = [None] * (len(node.input) - 1)
    own, whole = write.known(node.output[0]), write.known(node.input[0])
    if own == whole:
        return [gradient, *rest]
    if not attribute(node, "keepdims", 1):
        gradient = write.reshape(gradient, _kept(write, node, whole))
    return [write.add("Expand", gradient, write.integers(*whole)), *rest]


def _kept(write: Backward, node: onnx.NodeProto, whole: tuple[int, ...]) -> list[int]:
    """The shape that the result would have with its axes kept."""
    given = write.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    axes = attribute(node, "axes", None) if given is None else given.reshape(-1).tolist()
    gone = {axis % len(whole) for axis in axes} if axes else set(range(len(whole)))
    return [1 if axis in gone else size for axis, size in enumerate(whole)]


@differentiates("Softmax")
def softmax(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """y (dY - sum(dY y))"""
    product = write.add("Mul", upstream[0], node.output[0])
    level = write.sum(product, [attribute(node, "axis", -1)])
    return [write.add("Sub", product, write.add("Mul", node.output[0], level))]


@differentiates("LogSoftmax")
def log_softmax(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY - exp(y) sum(dY)"""
    level = write.sum(upstream[0], [attribute(node, "axis", -1)])
    return [write.add("Sub", upstream[0], write.add("Mul", write.add("Exp", node.output[0]), level))]
