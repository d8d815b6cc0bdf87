"""Gradients of pools."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Array

#: What stands for the gradient of a MaxPool until it is known whether blocked kernels compute it: (dY, places) -> dX.
OPEN_MAX_POOL = ("", "MaxPoolGrad")


@differentiates("MaxPool")
def max_pool(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """One open node."""
    return write.leave_open(OPEN_MAX_POOL, [upstream[0], node.output[1]], [node.input[0]])


def write_max_pool(write: Backward, node: onnx.NodeProto) -> None:
    """dY added at the places of the maxima, which are counted over the whole of X."""
    dy, places = node.input
    shape = write.known(node.output[0])
    zeros = write.zeros([prod(shape)], dy)
    line = write.integers(-1)
    flat = [write.add("Reshape", value, line) for value in (places, dy)]
    total = write.add("ScatterElements", zeros, *flat, axis=0, reduction="add")
    write.set_output(write.reshape(total, shape), node.output[0])


@differentiates("AveragePool")
def average_pool(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """The share of each window, spread over it"""
    batch, channels, *size = write.known(node.input[0])
    _, _, *result = write.known(node.output[0])
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    pads = list(attribute(node, "pads", [0] * (2 * rank)))
    share = write.add("Mul", upstream[0], write.array(_shares(node, size, result)))
    tiles = strides == list(kernel) and not any(pads)
    if tiles and all(count * k == length for count, k, length in zip(result, kernel, size, strict=True)):
        apart = [part for count in result for part in (count, 1)]
        whole = [part for count, k in zip(result, kernel, strict=True) for part in (count, k)]
        one = write.reshape(share, [batch * channels, *apart])
        spread = write.add("Expand", one, write.integers(batch * channels, *whole))
        return [write.reshape(spread, [batch, channels, *size])]
    left = [
        length - ((count - 1) * stride + k - first - last)
        for length, count, stride, k, first, last in zip(
            size, result, strides, kernel, pads[:rank], pads[rank:], strict=True
        )
    ]
    spread = write.add(
        "ConvTranspose",
        write.reshape(share, [batch * channels, 1, *result]),
        write.array(np.ones((1, 1, *kernel), np.float32)),
        kernel_shape=list(kernel),
        strides=strides,
        pads=pads,
        output_padding=left,
    )
    return [write.reshape(spread, [batch, channels, *size])]


def _shares(node: onnx.NodeProto, size: Sequence[int], result: Sequence[int]) -> Array:
    """One over the number of elements that each window counts, ``[*result]``; a single number where they agree."""
    kernel, rank = attribute(node, "kernel_shape", []), len(size)
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))
    counts = np.ones([1] * rank)
    for axis in range(rank):
        if attribute(node, "count_include_pad", 0):
            count = np.full(result[axis], kernel[axis])
        else:
            places = np.arange(result[axis])[:, None] * strides[axis] + np.arange(kernel[axis]) - pads[axis]
            count = ((places >= 0) & (places < size[axis])).sum(axis=1)
        counts = counts * count.reshape([-1 if place == axis else 1 for place in range(rank)])
    shares = (1.0 / np.maximum(counts, 1.0)).astype(np.float32)
    return shares.reshape(-1)[:1].reshape(()) if (shares == shares.flat[0]).all() else shares
