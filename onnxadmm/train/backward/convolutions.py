"""Convolutions and their gradients by the engine's blocked kernels.

The engine's own ConvGrad unrolls every image and multiplies matrices, image by image. Here each gradient is a
convolution itself, which the blocked kernels run at the speed of the forward pass (batch 64, one thread of an
AVX-512 machine, milliseconds by ConvGrad -> here): 3x3 on [16, 32, 32] 8.2 -> 4.5, on [256, 8, 8] 54 -> 38, on
[512, 2, 2] 60 -> 12; depthwise 3x3 on [144, 32, 32] 53 -> 12, on [960, 4, 4] 20 -> 0.6.

With y = conv(x, w), stride s, dilation d, padding p:

1. dX, stride 1: dY convolved with the filters turned by half a turn and channels exchanged, padded by (k - 1) d - p.
   Depthwise, any stride: the same on dY with s - 1 zeros between its entries.
2. dW, d = 1: dW[o, c, i, j] = sum over n, h, w of dY[n, o, h, w] X[n, c, h s + i, w s + j], a convolution over the
   images as channels, whose filters are dY. Channels c stand as further columns of the picture, so all are written by
   one pass: picture [1, N, H, W C], filters [O, N, Ho, Wo], dilation (s, s C), result [1, O, kh, kw C].
   Depthwise, each image and channel is a channel of its own, [1, N C, H, W], and the results are added up.
3. dB: the sum of dY over images and places.
"""

from dataclasses import dataclass

import onnx

from onnxadmm.train.backward.blocks import BLOCKED_DOMAIN, BlockedGraph
from onnxadmm.train.prepare.nodes import attribute

#: Least share of a blocked convolution's products that are not with filled-up channels; with more, plain is as fast.
_USEFUL = 0.65


@dataclass(frozen=True)
class Geometry:
    """Numbers of a two-dimensional convolution; pairs are (height, width)."""

    batch: int
    inputs: int
    outputs: int
    group: int
    size: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def is_depthwise(self) -> bool:
        return self.group == self.inputs == self.outputs and self.group > 1

    @property
    def pads(self) -> list[int]:
        return [*self.before, *self.after]


def read_geometry(graph: BlockedGraph, node: onnx.NodeProto, *, x: str, w: str) -> Geometry | None:
    """Geometry of a Conv or ConvGrad node, None unless it is a two-dimensional one of known shapes."""
    picture, weight = graph.shape(x), graph.shape(w)
    if picture is None or weight is None or len(picture) != 4 or len(weight) != 4:
        return None
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    pads = attribute(node, "pads", [0, 0, 0, 0])
    h, w_ = (
        (picture[axis + 2] + pads[axis] + pads[axis + 2] - (weight[axis + 2] - 1) * dilations[axis] - 1)
        // strides[axis]
        + 1
        for axis in (0, 1)
    )
    return Geometry(
        batch=picture[0],
        inputs=picture[1],
        outputs=weight[0],
        group=attribute(node, "group", 1),
        size=(picture[2], picture[3]),
        result=(h, w_),
        kernel=(weight[2], weight[3]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        before=(pads[0], pads[1]),
        after=(pads[2], pads[3]),
    )


def write_conv(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write a Conv with blocked kernels; False when none fits it."""
    x, w = node.input[0], node.input[1]
    g = read_geometry(graph, node, x=x, w=w)
    if g is None or not _pays(graph, g):
        return False
    narrow = g.group == 1 and g.inputs < graph.block
    source = graph.to_plain(x) if narrow else graph.to_blocked(x)
    more = graph.width(g.outputs) - g.outputs
    inputs = [source, graph.filters(w), *(graph.filled(bias, [more]) for bias in node.input[2:3] if bias)]
    made = graph.add(
        "Conv",
        inputs,
        f"{node.output[0]}/blocked",
        domain=BLOCKED_DOMAIN,
        group=graph.width(g.group) if g.is_depthwise else 1,
        kernel_shape=g.kernel,
        strides=g.strides,
        dilations=g.dilations,
        pads=g.pads,
    )
    graph.set_blocked(node.output[0], made, shape=(g.batch, g.outputs, *g.result))
    return True


def _pays(graph: BlockedGraph, g: Geometry) -> bool:
    if g.is_depthwise:
        return g.inputs >= _USEFUL * graph.width(g.inputs)
    # Fewer inputs than a block are read as they are.
    inputs = graph.width(g.inputs) if g.inputs >= graph.block else g.inputs
    return g.group == 1 and g.inputs * g.outputs >= _USEFUL * inputs * graph.width(g.outputs)


def write_conv_gradient(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write as many of the gradients of a ConvGrad (dX, dW, dB) as blocked kernels fit; False when none does."""
    dy, x, w = node.input[:3]
    g = read_geometry(graph, node, x=x, w=w)
    if g is None or not _pays(graph, g):
        return False
    graph.record_shape(dy, (g.batch, g.outputs, *g.result))
    outputs = [*node.output, "", ""][:3]
    writers = (_write_dx, _write_dw, _write_db)
    written = [bool(name) and write(graph, node, g, name) for write, name in zip(writers, outputs, strict=True)]
    if not any(written):
        return False
    rest = ["" if done else name for done, name in zip(written, outputs, strict=True)]
    while rest and not rest[-1]:
        rest.pop()
    if rest:
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        del plain.output[:]
        plain.output.extend(rest)
        plain.input[0] = graph.to_plain(dy)
        # Of X, dX asks for the shape only, which the blocked form has as well unless it was filled up.
        shape_only = not any(rest[1:]) and x in graph.blocked and graph.width(g.inputs) == g.inputs
        plain.input[1] = graph.blocked[x] if shape_only else graph.to_plain(x)
        graph.leave(graph, plain)
    return True


def _write_dx(graph: BlockedGraph, node: onnx.NodeProto, g: Geometry, output: str) -> bool:
    spans = [(k - 1) * d for k, d in zip(g.kernel, g.dilations, strict=True)]
    before = [span - p for span, p in zip(spans, g.before, strict=True)]
    # What the spread dY, of Ho s entries, needs at its end to give back as many entries as x has.
    after = [
        size - result * stride - first + span
        for size, result, stride, first, span in zip(g.size, g.result, g.strides, before, spans, strict=True)
    ]
    dense_stride = g.strides != (1, 1) and not g.is_depthwise
    if g.inputs < _USEFUL * graph.width(g.inputs) or dense_stride or min(before + after) < 0:
        return False
    source = _spread(graph, graph.to_blocked(node.input[0]), g) if g.strides != (1, 1) else None
    made = graph.add(
        "Conv",
        [source or graph.to_blocked(node.input[0]), graph.mirrored_filters(node.input[2])],
        f"{output}/blocked",
        domain=BLOCKED_DOMAIN,
        group=graph.width(g.group) if g.is_depthwise else 1,
        kernel_shape=g.kernel,
        dilations=g.dilations,
        pads=[*before, *after],
    )
    graph.set_blocked(output, made, shape=(g.batch, g.inputs, *g.size))
    return True


def _spread(graph: BlockedGraph, value: str, g: Geometry) -> str:
    """Put s - 1 zeros after every entry, along height and width, of a blocked value [N, O, Ho, Wo]."""
    (h, w), (sh, sw), block, width = g.result, g.strides, graph.block, graph.width(g.outputs)
    rows = graph.reshape(value, [g.batch * width // block, h, 1, w, block])
    pads = graph.integers(0, 0, 0, 0, 0, 0, 0, sh - 1, 0, (sw - 1) * block)
    return graph.reshape(graph.add("Pad", [rows, pads], f"{value}/spread"), [g.batch, width, h * sh, w * sw])


def _write_dw(graph: BlockedGraph, node: onnx.NodeProto, g: Geometry, output: str) -> bool:
    if g.dilations != (1, 1):
        return False
    # Rows and columns of the padded picture that some filter entry meets, less what stands before its end.
    after = [
        (result - 1) * stride + k - size - first
        for result, stride, k, size, first in zip(g.result, g.strides, g.kernel, g.size, g.before, strict=True)
    ]
    if g.is_depthwise:
        return min(after) >= 0 and _write_depthwise_dw(graph, node, g, output, after)
    images, width = graph.width(g.batch), graph.width(g.outputs)
    if g.batch < _USEFUL * images:
        return False
    (h, w), (ho, wo), (kh, kw), block = g.size, g.result, g.kernel, graph.block
    # [N, H, W, C] -> [1, N, H, W C], with its padding at the sides, blocked over the images
    picture = graph.reshape(graph.channels_last(node.input[1]), [1, g.batch, h, w * g.inputs])
    sides = [g.before[1] * g.inputs, after[1] * g.inputs]
    crop = min(after[0], 0)
    if any(sides) or crop or images > g.batch:
        pads = graph.integers(0, 0, 0, sides[0], 0, images - g.batch, crop, sides[1])
        picture = graph.add("Pad", [picture, pads], f"{output}/padded")
    picture = graph.add("ReorderInput", [picture], f"{output}/picture", domain=BLOCKED_DOMAIN)
    # [N/b, b of N, O/b, Ho Wo, b of O] -> [O/b, N/b, Ho Wo, b of N, b of O]
    split = [images // block, block, width // block, ho * wo, block]
    moved = graph.reshape(graph.filled(graph.to_blocked(node.input[0]), [images - g.batch, 0, 0, 0]), split)
    moved = graph.add("Transpose", [moved], f"{output}/moved", perm=[2, 0, 3, 1, 4])
    filters = graph.reshape(moved, [width, images, ho, wo])
    result = graph.add(
        "Conv",
        [picture, filters],
        f"{output}/blocked",
        domain=BLOCKED_DOMAIN,
        kernel_shape=[ho, wo],
        dilations=[g.strides[0], g.strides[1] * g.inputs],
        pads=[g.before[0], 0, max(after[0], 0), 0],
    )
    # [1, O, kh, kw C] -> [O, kh kw, C] -> [O, C, kh, kw]
    flat = graph.add("ReorderOutput", [result], f"{output}/flat", domain=BLOCKED_DOMAIN, channels=g.outputs)
    if kh * kw > 1:
        flat = graph.reshape(flat, [g.outputs, kh * kw, g.inputs])
        flat = graph.add("Transpose", [flat], f"{output}/turned", perm=[0, 2, 1])
    graph.set_plain(graph.reshape(flat, [g.outputs, g.inputs, kh, kw]), output)
    return True


def _write_depthwise_dw(graph: BlockedGraph, node: onnx.NodeProto, g: Geometry, output: str, after: list[int]) -> bool:
    width = graph.width(g.inputs)
    count = g.batch * width
    result = graph.add(
        "Conv",
        [
            graph.reshape(graph.to_blocked(node.input[1]), [1, count, *g.size]),
            graph.reshape(graph.to_blocked(node.input[0]), [count, 1, *g.result]),
        ],
        f"{output}/blocked",
        domain=BLOCKED_DOMAIN,
        group=count,
        kernel_shape=g.result,
        dilations=g.strides,
        pads=[*g.before, *after],
    )
    # [N, C/b, kh, kw, b] -> [C/b, kh, kw, b] -> [C, 1, kh, kw]
    each = graph.reshape(result, [g.batch, width * g.kernel[0] * g.kernel[1]])
    total = graph.add("ReduceSum", [each, graph.integers(0)], f"{output}/sum", keepdims=0)
    total = graph.reshape(total, [1, width, *g.kernel])
    flat = graph.add("ReorderOutput", [total], f"{output}/flat", domain=BLOCKED_DOMAIN, channels=g.inputs)
    graph.set_plain(graph.reshape(flat, [g.inputs, 1, *g.kernel]), output)
    return True


def _write_db(graph: BlockedGraph, node: onnx.NodeProto, g: Geometry, output: str) -> bool:
    """Sum first over places in blocks, then over images: the engine's reductions want one run of axes each."""
    places, block, width = g.result[0] * g.result[1], graph.block, graph.width(g.outputs)
    split = graph.reshape(graph.to_blocked(node.input[0]), [g.batch * width // block, places, block])
    sums = graph.add("ReduceSum", [split, graph.integers(1)], f"{output}/places", keepdims=0)
    each = graph.reshape(sums, [g.batch, width])
    total = graph.add("ReduceSum", [each, graph.integers(0)], f"{output}/sum", keepdims=0)
    if width > g.outputs:
        cut = [total, graph.integers(0), graph.integers(g.outputs), graph.integers(0)]
        total = graph.add("Slice", cut, f"{output}/cut")
    graph.set_plain(total, output)
    return True
