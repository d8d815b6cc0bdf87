"""Lowering of ConvTranspose."""

from math import prod

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("ConvTranspose")
def lower_conv_transpose(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Zeros between the elements, then a Conv with mirrored weights whose channels are exchanged."""
    shape, out = need_shape(space, node, node.input[0]), need_shape(space, node, node.output[0])
    weight = need_shape(space, node, node.input[1])  # [cin, cout/groups, *kernel]
    kernel = weight[2:]
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    starts = _pads_before(node, shape=shape, out=out, kernel=kernel, strides=strides, dilations=dilations)
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    write = Writer(space, node)
    value, sizes = _spread(write, node.input[0], shape, strides)
    before = [reach[axis] - starts[axis] for axis in range(rank)]
    after = [out[2 + axis] + reach[axis] - sizes[axis] - before[axis] for axis in range(rank)]
    for axis in range(rank):
        low, high = max(-before[axis], 0), sizes[axis] - max(-after[axis], 0)
        if (low, high) != (0, sizes[axis]):
            bounds = write.integers(low), write.integers(high), write.integers(2 + axis)
            value = write.add("Slice", value, *bounds)
    groups = attribute(node, "group", 1)
    result = write.add(
        "Conv",
        value,
        _mirrored(write, node.input[1], weight, groups),
        *[name for name in node.input[2:] if name],
        kernel_shape=list(kernel),
        dilations=dilations,
        strides=[1] * rank,
        pads=[*(max(b, 0) for b in before), *(max(a, 0) for a in after)],
        group=groups,
    )
    return write.finish(result)


def _pads_before(
    node: onnx.NodeProto,
    *,
    shape: tuple[int, ...],
    out: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[int]:
    """What is cut off at the start of each axis: stated, or its share of what makes the output as large as it is."""
    rank = len(kernel)
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * rank
    if mode == "NOTSET" and not attribute(node, "output_shape", None):
        return list(attribute(node, "pads", [0] * (2 * rank)))[:rank]
    extra = attribute(node, "output_padding", [0] * rank)
    starts = []
    for axis in range(rank):
        full = (shape[2 + axis] - 1) * strides[axis] + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(full - out[2 + axis], 0)
        starts.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return starts


def _spread(write: Writer, value: str, shape: tuple[int, ...], strides: list[int]) -> tuple[str, list[int]]:
    """Put ``stride - 1`` zeros behind each element: [N, C, H, W] -> [N, C, H*s, W*s], and its spatial sizes."""
    sizes = [size * stride for size, stride in zip(shape[2:], strides, strict=True)]
    if set(strides) == {1}:
        return value, sizes
    apart = list(shape[:2]) + [part for size in shape[2:] for part in (size, 1)]
    ends = [0, 0] + [part for stride in strides for part in (0, stride - 1)]
    split = write.reshape(value, apart)
    padded = write.add("Pad", split, write.array(np.array([0] * len(ends) + ends, np.int64)))
    return write.reshape(padded, [*shape[:2], *sizes]), sizes


def _mirrored(write: Writer, weight: str, shape: tuple[int, ...], groups: int) -> str:
    """[cin, cout/g, *kernel] -> [cout, cin/g, *kernel], every spatial axis reversed."""
    inputs, outputs, kernel = shape[0] // groups, shape[1], shape[2:]
    flat = write.reshape(weight, (groups, inputs, outputs, prod(kernel)))
    if prod(kernel) > 1:
        flat = write.gather(flat, range(prod(kernel) - 1, -1, -1), axis=3)
    exchanged = write.add("Transpose", flat, perm=[0, 2, 1, 3])
    return write.reshape(exchanged, (groups * outputs, inputs, *kernel))
