"""Gradients of normalisations."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute


@differentiates("LayerNormalization")
def layer_normalization(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """See ``layer_norm_gradients``."""
    outputs = layer_norm_gradients(
        write,
        (upstream[0], *node.input[:2], *node.output[1:3]),
        (write.known(node.input[0]), write.known(node.input[1])),
        wanted=(write.wants(0), write.wants(1), write.wants(2)),
    )
    return list(outputs)[: len(node.input)]


def layer_norm_gradients(
    write: Backward,
    values: Sequence[str],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    wanted: tuple[bool, bool, bool],
) -> tuple[str | None, str | None, str | None]:
    """Write the gradients of a LayerNormalization by its data, scale and bias.

    With n = (x - mean) / deviation over rows of D entries, y = n * scale + bias and h = dY * scale::

        dX = (h - mean(h) - n mean(h n)) / deviation,    dscale = sum over rows of dY n,    dbias = sum over rows of dY

    Args:
        values: names of dY, x, scale, the mean and 1 / deviation.
        shapes: of x and of scale.
    """
    shape, scale_shape = shapes
    columns = prod(scale_shape)
    rows = prod(shape) // columns
    dy, x = (write.reshape(name, [rows, columns]) for name in values[:2])
    flat = write.reshape(values[2], [columns])
    mean, inverse = (write.reshape(name, [rows, 1]) for name in values[3:])
    normal = write.add("Mul", write.add("Sub", x, mean), inverse)
    product = write.add("Mul", dy, normal)
    first = None
    if wanted[0]:
        # mean(h) and mean(h n) as products of a matrix with scale / D
        share = write.reshape(write.scale(flat, 1.0 / columns), [columns, 1])
        level, slope = write.add("MatMul", dy, share), write.add("MatMul", product, share)
        rest = write.add("Sub", write.add("Mul", dy, flat), level)
        rest = write.add("Sub", rest, write.add("Mul", normal, slope))
        first = write.reshape(write.add("Mul", rest, inverse), shape)
    second, third = (
        write.reshape(write.sum(value, [0], keep=False), scale_shape) if want else None
        for value, want in zip((product, dy), wanted[1:], strict=True)
    )
    return first, second, third


@differentiates("BatchNormalization")
def batch_normalization(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """By the data that the batch's own mean and variance are of as well; constant ones were written out before.

    With n = (x - mean) / deviation over the entries of each channel::

        dX = scale / deviation (dY - mean(dY) - n mean(dY n)),    dscale = sum(dY n),    dbias = sum(dY)

    What is one factor and one shift per channel is a normalisation itself, which a kernel does in one pass.
    """
    x, scale, _, mean, variance = node.input
    shape, epsilon = write.known(x), attribute(node, "epsilon", 1e-5)
    zeros = write.array(np.zeros(shape[1], np.float32))
    ones = write.array(np.ones(shape[1], np.float32))
    normal = write.add("BatchNormalization", x, ones, zeros, mean, variance, epsilon=epsilon)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    by_bias = _per_channel(write, upstream[0], shape, axes)
    by_scale = _per_channel(write, write.add("Mul", upstream[0], normal), shape, axes)
    first = None
    if write.wants(0):
        inverse = write.add("Reciprocal", write.add("Sqrt", write.add("Add", variance, write.scalar(epsilon))))
        factor = write.add("Mul", scale, inverse)
        share = write.scale(factor, -shape[1] / prod(shape))
        tilt = (write.add("Mul", by_scale, share), write.add("Mul", by_bias, share), zeros, ones)
        first = write.add(
            "Add",
            write.add("BatchNormalization", normal, *tilt, epsilon=0.0),
            write.add("BatchNormalization", upstream[0], factor, zeros, zeros, ones, epsilon=0.0),
        )
    return [first, by_scale, by_bias, None, None]


def _per_channel(write: Backward, value: str, shape: tuple[int, ...], axes: list[int]) -> str:
    return write.reshape(write.total(value, shape, axes), [shape[1]])
