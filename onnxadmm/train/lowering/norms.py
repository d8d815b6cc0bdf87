"""Lowerings of normalisations other than BatchNormalization and LayerNormalization."""

from math import prod

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.lowering.reductions import safe_root
from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape, unknown_shape
from onnxadmm.train.prepare.nodes import attribute, label
from onnxadmm.train.prepare.workspace import Workspace


def standardise(write: Writer, value: str, *, axes: list[int], size: int, epsilon: float) -> str:
    """(x - mean) / sqrt(var + epsilon) over ``axes``, ``size`` elements together."""
    centred = write.add("Sub", value, write.scale(write.sum(value, axes), 1.0 / size))
    variance = write.scale(write.sum(write.add("Mul", centred, centred), axes), 1.0 / size)
    return write.add("Div", centred, write.add("Sqrt", write.add("Add", variance, write.scalar(epsilon))))


@lowers("InstanceNormalization")
def lower_instance_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Standardised per sample and channel, then scaled and shifted per channel."""
    return _by_groups(space, node, groups=None)


@lowers("GroupNormalization")
def lower_group_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Standardised per sample and group of channels, then scaled and shifted per channel (per group before 21)."""
    return _by_groups(space, node, groups=attribute(node, "num_groups", 1))


def _by_groups(space: Workspace, node: onnx.NodeProto, *, groups: int | None) -> Nodes:
    shape = need_shape(space, node, node.input[0])
    batch, channels, *rest = shape
    count = channels if groups is None else groups
    size = channels // count * prod(rest)
    write = Writer(space, node)
    flat = write.reshape(node.input[0], (batch, count, size))
    level = standardise(write, flat, axes=[2], size=size, epsilon=attribute(node, "epsilon", 1e-5))
    (entries,) = need_shape(space, node, node.input[1])
    level = write.reshape(level, (batch, entries, channels // entries * prod(rest)))
    scaled = write.add("Mul", level, write.reshape(node.input[1], (entries, 1)))
    shifted = write.add("Add", scaled, write.reshape(node.input[2], (entries, 1)))
    return write.finish(write.reshape(shifted, shape))


@lowers("RMSNormalization")
def lower_rms_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x / sqrt(mean(x^2) + epsilon) times the scale"""
    shape = need_shape(space, node, node.input[0])
    axes = list(range(attribute(node, "axis", -1) % len(shape), len(shape)))
    write = Writer(space, node)
    epsilon = attribute(node, "epsilon", 1e-5)
    return write.finish(root_mean_square(write, node.input[0], node.input[1], shape, axes=axes, epsilon=epsilon))


def root_mean_square(
    write: Writer, value: str, scale: str, shape: tuple[int, ...], *, axes: list[int], epsilon: float
) -> str:
    mean = write.scale(write.sum(write.add("Mul", value, value), axes), 1.0 / prod(shape[axis] for axis in axes))
    root = write.add("Sqrt", write.add("Add", mean, write.scalar(epsilon)))
    return write.add("Mul", write.add("Div", value, root), scale)


@lowers("MeanVarianceNormalization")
def lower_mean_variance_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """(x - mean) / (sqrt(var) + 1e-9) over axes 0, 2 and 3 unless others are given"""
    shape = need_shape(space, node, node.input[0])
    axes = [axis % len(shape) for axis in attribute(node, "axes", [0, 2, 3])]
    size = prod(shape[axis] for axis in axes)
    write = Writer(space, node)
    centred = write.add("Sub", node.input[0], write.scale(write.sum(node.input[0], axes), 1.0 / size))
    variance = write.scale(write.sum(write.add("Mul", centred, centred), axes), 1.0 / size)
    deviation = write.add("Add", safe_root(write, variance), write.scalar(1e-9))
    return write.finish(write.add("Div", centred, deviation))


@lowers("LRN")
def lower_local_response_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x / (bias + alpha/size S)^beta, S the squares of neighbouring channels: a band matrix times them."""
    shape = need_shape(space, node, node.input[0])
    channels, size = shape[1], attribute(node, "size", 1)
    places = np.arange(channels)
    distance = places[None, :] - places[:, None]  # [to, from]
    band = ((distance >= -((size - 1) // 2)) & (distance <= size // 2)).astype(np.float32)
    write = Writer(space, node)
    flat = write.reshape(node.input[0], (shape[0], channels, prod(shape[2:])))
    squares = write.add("MatMul", write.array(band), write.add("Mul", flat, flat))
    share = write.scale(squares, attribute(node, "alpha", 1e-4) / size)
    base = write.add("Add", share, write.scalar(attribute(node, "bias", 1.0)))
    power = write.add("Pow", base, write.scalar(attribute(node, "beta", 0.75)))
    return write.finish(write.reshape(write.add("Div", flat, power), shape))


@lowers("LpNormalization")
def lower_lp_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x / norm of x along an axis, 0 where the norm is 0"""
    rank = len(need_shape(space, node, node.input[0]))
    axis = attribute(node, "axis", -1) % rank
    write = Writer(space, node)
    if attribute(node, "p", 2) == 1:
        norm = write.sum(write.add("Abs", node.input[0]), [axis])
    else:
        norm = safe_root(write, write.sum(write.add("Mul", node.input[0], node.input[0]), [axis]))
    empty = write.add("Equal", write.stop(norm), write.scalar(0.0))
    return write.finish(write.add("Div", node.input[0], write.add("Where", empty, write.scalar(1.0), norm)))


@lowers("LayerNormalization")
def lower_layer_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with the mean and inverse-deviation outputs its gradient reads."""
    while len(node.output) < 3:
        node.output.append("")
    for index, hint in ((1, "mean"), (2, "inverse_deviation")):
        if not node.output[index]:
            node.output[index] = space.fresh(f"{node.output[0]}/{hint}")
    if len(node.input) < 3 or not node.input[2]:
        # The engine's gradient takes the bias for granted.
        shape = space.shape(node.input[1])
        if shape is None:
            raise unknown_shape(node, node.input[1])
        del node.input[2:]
        node.input.append(space.constant(f"{node.output[0]}/bias", np.zeros(shape, np.float32)))
    return [node]


@lowers("BatchNormalization")
def lower_batch_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x k + (bias - mean k) with k = scale / sqrt(var + epsilon): scale and bias train, statistics stay."""
    write = Writer(space, node)
    shape = need_shape(space, node, node.input[0])
    factor, mean = batch_factor(space, write, node)
    shift = write.add("Sub", node.input[2], write.add("Mul", mean, factor))
    broadcast = write.integers(-1, *([1] * (len(shape) - 2)))  # [C] -> [C, 1, ...]
    scaled = write.add("Mul", node.input[0], write.add("Reshape", factor, broadcast))
    return write.finish(write.add("Add", scaled, write.add("Reshape", shift, broadcast)))


def batch_factor(space: Workspace, write: Writer, node: onnx.NodeProto) -> tuple[str, str]:
    """Names of k = scale / sqrt(var + epsilon) and of the mean, both [C]."""
    mean, variance = (space.constants.get(name) for name in node.input[3:5])
    if mean is None or variance is None:
        raise NotTrainableError(
            label(node),
            expected="constant mean and variance",
            found="statistics computed in the graph",
            way_out="export the model in inference mode",
        )
    deviation = np.sqrt(variance.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    inverse = space.constant(f"{node.output[0]}/inverse_deviation", (1.0 / deviation).astype(np.float32))
    return write.add("Mul", node.input[1], inverse), node.input[3]
