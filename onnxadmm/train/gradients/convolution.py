"""Gradients of convolutions in any number of dimensions, groups, strides and dilations.

With y = conv(x, w), stride s, dilation d, padding p, on images [N, C, H, W] and filters [O, C, kh, kw]:

1. dX is the transposed convolution of dY with w.
2. dW[o, c, i, j] = sum over n, h, w of dY[n, o, h, w] X[n, c, h s + i d, w s + j d]: a convolution over the images as
   channels, whose filters are dY, with dilation s and stride d. Where d = 1, the channels c stand as further columns of
   the picture: [1, N, H, W C] by [O, N, Ho, Wo], dilation (s, s C), gives [1, O, kh, kw C]. Where it is not, they stand
   as images: [C, N, H, W] gives [C, O, kh, kw]. Of G groups, each has its N channels: [1, G N, H, W C / G].
3. dB is the sum of dY over images and places.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute

#: What stands for the gradients of a Conv until it is known which of them blocked kernels compute:
#: (dY, x, w) -> (dX, dW, dB), as in the training engine.
OPEN_CONV = ("com.microsoft", "ConvGrad")


@differentiates("Conv")
def convolution(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """One open node for all three."""
    like = [name if write.wants(index) else None for index, name in enumerate(node.input)]
    return write.leave_open(OPEN_CONV, [upstream[0], *node.input[:2]], like)


def write_convolution(write: Backward, node: onnx.NodeProto) -> None:
    """Write the gradients that an open node puts out."""
    dy, x, w = node.input
    outputs = [*node.output, "", ""][:3]
    if outputs[0]:
        write.set_output(_by_input(write, node, dy, x, w), outputs[0])
    if outputs[1]:
        write.set_output(_by_weight(write, node, dy, x, w), outputs[1])
    if outputs[2]:
        places = write.known(dy)
        total = write.total(dy, places, [axis for axis in range(len(places)) if axis != 1])
        write.set_output(write.reshape(total, [places[1]]), outputs[2])


def _by_input(write: Backward, node: onnx.NodeProto, dy: str, x: str, w: str) -> str:
    shape, result, kernel = write.known(x)[2:], write.known(dy)[2:], write.known(w)[2:]
    strides, dilations, pads = _geometry(node, len(kernel))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    # Rows at the end that no window reaches.
    left = [
        size - ((count - 1) * stride + (k - 1) * dilation + 1 - first - last)
        for size, count, stride, k, dilation, first, last in zip(
            shape, result, strides, kernel, dilations, before, after, strict=True
        )
    ]
    return write.add(
        "ConvTranspose",
        dy,
        w,
        kernel_shape=list(kernel),
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=left,
        group=attribute(node, "group", 1),
    )


def _by_weight(write: Backward, node: onnx.NodeProto, dy: str, x: str, w: str) -> str:
    batch, channels, *size = write.known(x)
    _, outputs, *result = write.known(dy)
    _, each, *kernel = write.known(w)
    groups, rank = channels // each, len(kernel)
    strides, dilations, pads = _geometry(node, rank)
    before = pads[:rank]
    # Rows and columns behind the picture that some filter entry meets, less what stands before its end.
    after = [
        (count - 1) * stride + (k - 1) * dilation + 1 - length - first
        for count, stride, k, dilation, length, first in zip(
            result, strides, kernel, dilations, size, before, strict=True
        )
    ]
    filters = write.add("Transpose", dy, perm=[1, 0, *range(2, rank + 2)])  # [O, N, ...]
    apart = x if groups == 1 else write.reshape(x, [batch, groups, each, *size])
    if dilations[-1] > 1:
        order = [1, 0, *range(2, rank + 2)] if groups == 1 else [2, 1, 0, *range(3, rank + 3)]
        picture = write.reshape(write.add("Transpose", apart, perm=order), [each, groups * batch, *size])
        step = strides
    else:
        order = [0, *range(2, rank + 2), 1] if groups == 1 else [1, 0, *range(3, rank + 3), 2]
        picture = write.add("Transpose", apart, perm=order)
        picture = write.reshape(picture, [1, groups * batch, *size[:-1], size[-1] * each])
        step = [*strides[:-1], strides[-1] * each]
        before, after = [*before[:-1], before[-1] * each], [*after[:-1], after[-1] * each]
    if min(after) < 0:
        crop = np.zeros((2, rank + 2), np.int64)
        crop[1, 2:] = np.minimum(after, 0)
        picture = write.add("Pad", picture, write.array(crop.reshape(-1)))
    made = write.add(
        "Conv",
        picture,
        filters,
        kernel_shape=list(result),
        dilations=step,
        strides=dilations,
        pads=[*before, *(max(more, 0) for more in after)],
        group=groups,
    )
    if dilations[-1] > 1:
        return write.add("Transpose", made, perm=[1, 0, *range(2, rank + 2)])
    if each > 1 and prod(kernel) > 1:
        made = write.reshape(made, [outputs, prod(kernel), each])
        made = write.add("Transpose", made, perm=[0, 2, 1])
    return write.reshape(made, [outputs, each, *kernel])


def _geometry(node: onnx.NodeProto, rank: int) -> tuple[list[int], list[int], list[int]]:
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    return strides, dilations, list(attribute(node, "pads", [0] * (2 * rank)))
