"""Lowerings of pooling, normalisation, products, reductions and slices."""

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.lowering.writer import Nodes, Writer, need_shape, unknown_shape
from onnxadmm.train.prepare.nodes import attribute, label, set_attribute
from onnxadmm.train.prepare.workspace import Workspace


def lower_global_max_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A MaxPool whose kernel is the whole plane."""
    shape = need_shape(space, node, node.input[0])
    write = Writer(space, node)
    return write.finish(write.add("MaxPool", node.input[0], kernel_shape=list(shape[2:])))


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


def lower_average_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A depthwise Conv of ones, divided by what each window counts, where the engine's own gradient is wrong.

    It is right for one and two dimensions without dilation and ceil_mode, and these stay.
    """
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    dilations = attribute(node, "dilations", [1] * rank)
    if rank <= 2 and set(dilations) == {1} and not attribute(node, "ceil_mode", 0):
        return [node]
    shape, out = need_shape(space, node, node.input[0]), need_shape(space, node, node.output[0])
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))
    padded = bool(attribute(node, "count_include_pad", 0))
    counts = np.ones((1, 1, *[1] * rank))
    for axis in range(rank):
        size, stride, before = shape[2 + axis], strides[axis], pads[axis]
        # Position p of the input stands at p + before; padding counts up to the pads the node declares, no further.
        low, high = (0, size + before + pads[rank + axis]) if padded else (before, before + size)
        places = np.arange(out[2 + axis])[:, None] * stride + np.arange(kernel[axis]) * dilations[axis]
        count = ((places >= low) & (places < high)).sum(axis=1)
        counts = counts * count.reshape([-1 if place == axis else 1 for place in range(-2, rank)])
    write = Writer(space, node)
    total = window_sum(space, write, node, node.input[0])
    share = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    mean = write.add("Mul", total, write.array(share.astype(np.float32)))
    return write.finish(write.reshape(mean, out))


def window_sum(space: Workspace, write: Writer, node: onnx.NodeProto, value: str) -> str:
    """The sum of each window of a pool, ``[N * C, 1, ...]``: a Conv of ones over channels that became samples.

    The engine's gradient of a grouped Conv is not right in every rank.

    Args:
        value: of the shape of the node's input.
    """
    shape, out = need_shape(space, node, node.input[0]), need_shape(space, node, node.output[0])
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


def lower_conv(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A grouped Conv in one dimension as one in two, in three dimensions as one Conv per group.

    The engine's gradient by the weight of a grouped Conv is right in two dimensions only.
    """
    groups = attribute(node, "group", 1)
    if groups == 1:
        return [node]
    shape = need_shape(space, node, node.input[0])
    if len(shape) == 4:
        return [node]
    return _conv_of_a_line(space, node) if len(shape) == 3 else _conv_by_groups(space, node, groups)


def _conv_of_a_line(space: Workspace, node: onnx.NodeProto) -> Nodes:
    out, weight = need_shape(space, node, node.output[0]), need_shape(space, node, node.input[1])
    write = Writer(space, node)
    axis = write.integers(2)
    plane = write.add("Unsqueeze", node.input[0], axis)  # [N, C, L] -> [N, C, 1, L]
    kernel = write.add("Unsqueeze", node.input[1], axis)
    first, last = attribute(node, "pads", [0, 0])
    result = write.add(
        "Conv",
        plane,
        kernel,
        *node.input[2:],
        group=attribute(node, "group", 1),
        kernel_shape=[1, weight[2]],
        strides=[1, *attribute(node, "strides", [1])],
        dilations=[1, *attribute(node, "dilations", [1])],
        pads=[0, first, 0, last],
    )
    return write.finish(write.add("Reshape", result, write.integers(*out)))


def _conv_by_groups(space: Workspace, node: onnx.NodeProto, groups: int) -> Nodes:
    shape, weight = need_shape(space, node, node.input[0]), need_shape(space, node, node.input[1])
    write = Writer(space, node)
    channels = write.split(node.input[0], axis=1, sizes=[shape[1] // groups] * groups)
    kernels = write.split(node.input[1], axis=0, sizes=[weight[0] // groups] * groups)
    biased = len(node.input) > 2 and bool(node.input[2])
    biases = write.split(node.input[2], axis=0, sizes=[weight[0] // groups] * groups) if biased else []
    kept = {
        name: value
        for name in ("kernel_shape", "strides", "dilations", "pads")
        if (value := attribute(node, name, None)) is not None
    }
    parts = [
        write.add("Conv", channels[index], kernels[index], *biases[index : index + 1], **kept)
        for index in range(groups)
    ]
    return write.finish(write.add("Concat", *parts, axis=1))


def lower_matmul(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with vectors as matrices of one row or column, then a Reshape."""
    left, right = space.shape(node.input[0]), space.shape(node.input[1])
    if left is None or right is None or (len(left) > 1 and len(right) > 1):
        return [node]
    out = need_shape(space, node, node.output[0])
    write = Writer(space, node)
    rows = write.reshape(node.input[0], (1, *left)) if len(left) == 1 else node.input[0]
    columns = write.reshape(node.input[1], (*right, 1)) if len(right) == 1 else node.input[1]
    return write.finish(write.reshape(write.add("MatMul", rows, columns), out))


def lower_gemm(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with a C of rank 1 where it had a single number of rank 0, whose gradient has the wrong rank."""
    if attribute(node, "beta", 1.0) == 0.0:
        # The gradient refuses a C that counts for nothing.
        del node.input[2:]
    if len(node.input) < 3 or not node.input[2] or space.shape(node.input[2]) != ():
        return [node]
    write = Writer(space, node)
    vector = write.add("Reshape", node.input[2], write.integers(1))
    node.input[2] = vector
    return [*write.nodes, node]


def lower_slice(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A Gather per axis where a step is negative: the gradient's kernel fails on a last axis that is reversed."""
    operands = [space.constants.get(name) for name in node.input[1:]]
    starts, ends, axes, steps = [*operands, None, None][:4]
    if starts is None or ends is None or steps is None or (steps > 0).all():
        return [node]
    shape = need_shape(space, node, node.input[0])
    write = Writer(space, node)
    value = node.input[0]
    for index, start in enumerate(starts):
        axis = int(axes[index]) % len(shape) if axes is not None else index
        places = _places(int(start), int(ends[index]), int(steps[index]), shape[axis])
        value = write.add("Gather", value, write.array(np.array(places, np.int64)), axis=axis)
    return write.finish(value)


def _places(start: int, end: int, step: int, size: int) -> range:
    """Positions a Slice takes along an axis of ``size``, its bounds clamped as ONNX says."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def lower_cast_like(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A Cast to the type of the second input."""
    kind = space.element_type(node.input[1])
    if not kind:
        raise unknown_shape(node, node.input[1])
    write = Writer(space, node)
    return write.finish(write.add("Cast", node.input[0], to=kind))


def lower_pow(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with a floating-point exponent, as its gradient takes for granted."""
    exponent = space.constants.get(node.input[1])
    if exponent is not None and exponent.dtype.kind in "iu":
        node.input[1] = space.constant(f"{node.input[1]}/float", exponent.astype(np.float32))
    return [node]


def lower_reduction(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A reduction that keeps its axes, then a Reshape: the gradient of one that drops them is not valid ONNX."""
    if attribute(node, "keepdims", 1):
        return [node]
    out = need_shape(space, node, node.output[0])
    write = Writer(space, node)
    kept = space.fresh(f"{node.output[0]}/kept")
    last = write.add("Reshape", kept, write.integers(*out))
    set_attribute(node, "keepdims", None)
    nodes = write.finish(last)
    node.output[0] = kept
    return [node, *nodes]


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
