"""Pooling."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.lowering.installed import answer_of
from onnxadmm.train.lowering.reductions import safe_root
from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
from onnxadmm.train.prepare.nodes import attribute, label, set_attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("GlobalMaxPool")
def lower_global_max_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A MaxPool whose kernel is the whole plane."""
    shape = need_shape(space, node, node.input[0])
    write = Writer(space, node)
    return write.finish(write.add("MaxPool", node.input[0], kernel_shape=list(shape[2:])))


@lowers("MaxPool")
def lower_max_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with the index output its gradient reads, in row-major order."""
    if attribute(node, "storage_order", 0) and len(node.output) > 1 and node.output[1]:
        raise NotTrainableError(
            label(node),
            expected="row-major indices",
            found="storage_order = 1 with its indices used, which the engine differentiates wrongly",
            way_out="export without storage_order",
        )
    set_attribute(node, "storage_order", None)
    if len(node.output) == 1:
        node.output.append("")
    if not node.output[1]:
        node.output[1] = space.fresh(f"{node.output[0]}/indices")
    return [node]


@lowers("AveragePool")
def lower_average_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A depthwise Conv of ones, divided by what each window counts, where the engine's own gradient is wrong.

    It is right for one and two dimensions without dilation and ceil_mode, and these stay.
    """
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    dilations = attribute(node, "dilations", [1] * rank)
    if rank <= 2 and set(dilations) == {1} and not attribute(node, "ceil_mode", 0):
        return [node]
    shape = need_shape(space, node, node.input[0])
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))
    # What a window that reaches over the padding is divided by, or whether it is one, runtimes do not agree on: 1.19
    # divides by the whole kernel, 1.32 by what lies within the padding. A picture of ones tells.
    picture = {"ones": np.ones((1, 1, *shape[2:]), np.float32)}
    shares = answer_of(space, node, picture, way_out="pool without ceil_mode, dilations or a third dimension")
    out = (*shape[:2], *shares.shape[2:])
    counts = np.ones((1, 1, *[1] * rank))
    for axis in range(rank):
        # Position p of the input stands at p + before.
        low, high = pads[axis], pads[axis] + shape[2 + axis]
        places = np.arange(out[2 + axis])[:, None] * strides[axis] + np.arange(kernel[axis]) * dilations[axis]
        count = ((places >= low) & (places < high)).sum(axis=1)
        counts = counts * count.reshape([-1 if place == axis else 1 for place in range(-2, rank)])
    write = Writer(space, node)
    total = window_sum(space, write, node, node.input[0], out)
    share = np.divide(shares, counts, out=np.zeros_like(counts), where=counts > 0)
    mean = write.add("Mul", total, write.array(share.astype(np.float32)))
    return write.finish(write.reshape(mean, out))


def window_sum(space: Workspace, write: Writer, node: onnx.NodeProto, value: str, out: Sequence[int]) -> str:
    """The sum of each window of a pool, ``[N * C, 1, ...]``: a Conv of ones over channels that became samples.

    The engine's gradient of a grouped Conv is not right in every rank.

    Args:
        value: of the shape of the node's input.
        out: shape of its result.
    """
    shape = need_shape(space, node, node.input[0])
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    dilations = attribute(node, "dilations", [1] * rank)
    strides = attribute(node, "strides", [1] * rank)
    before = list(attribute(node, "pads", [0] * (2 * rank)))[:rank]
    ends = []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        ends.append(max((out[2 + axis] - 1) * strides[axis] + reach - shape[2 + axis] - before[axis], 0))
    single = write.reshape(value, (shape[0] * shape[1], 1, *shape[2:]))
    ones = write.array(np.ones((1, 1, *kernel), np.float32))
    convolution = {"strides": strides, "dilations": dilations, "pads": [*before, *ends]}
    return write.add("Conv", single, ones, kernel_shape=kernel, **convolution)


@lowers("LpPool")
def lower_lp_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The p-th root of the sum of |x|^p in each window"""
    out = need_shape(space, node, node.output[0])
    write = Writer(space, node)
    power = attribute(node, "p", 2)
    total = window_sum(space, write, node, _powers(write, node.input[0], power), out)
    return write.finish(write.reshape(_root(write, total, power), out))


@lowers("GlobalLpPool")
def lower_global_lp_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The p-th root of the sum of |x|^p over all positions"""
    shape = need_shape(space, node, node.input[0])
    write = Writer(space, node)
    power = attribute(node, "p", 2)
    flat = write.reshape(_powers(write, node.input[0], power), (*shape[:2], prod(shape[2:])))
    root = _root(write, write.sum(flat, [2]), power)
    return write.finish(write.reshape(root, (*shape[:2], *[1] * (len(shape) - 2))))


def _powers(write: Writer, value: str, power: int) -> str:
    if power == 2:
        return write.add("Mul", value, value)
    size = write.add("Abs", value)
    return size if power == 1 else write.add("Pow", size, write.scalar(power))


def _root(write: Writer, total: str, power: int) -> str:
    if power == 1:
        return write.add("Identity", total)
    if power == 2:
        return safe_root(write, total)
    empty = write.add("Equal", write.stop(total), write.scalar(0.0))
    filled = write.add("Where", empty, write.scalar(1.0), total)
    return write.add("Where", empty, write.scalar(0.0), write.add("Pow", filled, write.scalar(1.0 / power)))
