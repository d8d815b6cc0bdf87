"""Gradients of what moves, repeats, joins and cuts elements: they go back to where they came from."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Array


@differentiates("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def view(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY in the shape of X"""
    return [write.shaped_like(upstream[0], node.input[0]), *([None] * (len(node.input) - 1))]


@differentiates("Transpose")
def transpose(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY with its axes put back"""
    order = attribute(node, "perm", None) or list(reversed(range(len(write.known(node.input[0])))))
    return [write.add("Transpose", upstream[0], perm=[order.index(axis) for axis in range(len(order))])]


@differentiates("Expand")
def expand(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY summed over what was repeated"""
    return [write.matched(upstream[0], node.output[0], node.input[0]), None]


@differentiates("Tile")
def tile(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY summed over the copies: [n1 s1, n2 s2, ...] as [n1, s1, n2, s2, ...]"""
    own, whole = write.known(node.input[0]), write.known(node.output[0])
    parts = [part for size, many in zip(own, whole, strict=True) for part in (many // max(size, 1), size)]
    apart = write.reshape(upstream[0], parts)
    total = write.total(apart, parts, range(0, len(parts), 2))
    return [write.shaped_like(total, node.input[0]), None]


@differentiates("Concat")
def concat(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """Each its piece of dY"""
    axis = attribute(node, "axis", 0)
    sizes = [write.known(name)[axis] for name in node.input]
    if len(sizes) == 1:
        return [upstream[0]]
    return list(write.split(upstream[0], axis=axis, sizes=sizes))


@differentiates("Split")
def split(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """The pieces joined, zeros for those that nothing flows to"""
    some = next(gradient for gradient in upstream if gradient)
    pieces = [
        gradient or write.zeros_like(result, some)
        for gradient, result in zip(upstream, node.output, strict=True)
        if result
    ]
    joined = pieces[0] if len(pieces) == 1 else write.add("Concat", *pieces, axis=attribute(node, "axis", 0))
    return [joined, *([None] * (len(node.input) - 1))]


@differentiates("Pad")
def pad(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY without the margins"""
    shape, amounts = write.known(node.input[0]), write.value(node.input[1])
    rest = [None] * (len(node.input) - 1)
    if amounts is None:
        rank = len(shape)
        starts = write.add("Slice", node.input[1], write.integers(0), write.integers(rank), write.integers(0))
        ends = write.add("Add", starts, write.sizes(node.input[0]))
        return [write.add("Slice", upstream[0], starts, ends), *rest]
    # Of all axes: others were written out.
    before = [int(amount) for amount in amounts[: len(shape)]]
    cut = [axis for axis, size in enumerate(write.known(node.output[0])) if size != shape[axis]]
    if not cut:
        return [upstream[0], *rest]
    bounds = [before[axis] for axis in cut], [before[axis] + shape[axis] for axis in cut], cut
    return [write.add("Slice", upstream[0], *(write.integers(*values) for values in bounds)), *rest]


@differentiates("Slice")
def slice_(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY where it was cut out of, zeros elsewhere"""
    rest = [None] * (len(node.input) - 1)
    bounds = [write.value(name) if name else None for name in node.input[1:]]
    if any(value is None and name for value, name in zip(bounds, node.input[1:], strict=True)):
        return [_slice_while_running(write, node, upstream[0]), *rest]
    starts, ends, axes, steps = [*bounds, None, None][:4]
    assert starts is not None
    assert ends is not None
    shape, value = write.known(node.input[0]), upstream[0]
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = int(axes[index]) % len(shape) if axes is not None else index
        places = np.arange(shape[axis])[start : end : int(steps[index]) if steps is not None else 1]
        value = spread(write, value, places, shape[axis], axis=axis, rank=len(shape))
    return [value, *rest]


def spread(write: Backward, value: str, places: Array, size: int, *, axis: int, rank: int) -> str:
    """Put the entries of an axis at different ``places`` of one of ``size`` entries, with zeros between them."""
    if np.array_equal(places, np.arange(size)):
        return value
    margin = np.zeros((2, rank), np.int64)
    run = len(places) > 0 and np.array_equal(places, np.arange(places[0], places[0] + len(places)))
    margin[:, axis] = (places[0], size - places[-1] - 1) if run else (0, 1)
    padded = write.add("Pad", value, write.array(margin.reshape(-1)))
    if run:
        return padded
    source = np.full(size, len(places), np.int64)
    source[places] = np.arange(len(places))
    return write.gather(padded, source.tolist(), axis=axis)


def _slice_while_running(write: Backward, node: onnx.NodeProto, upstream: str) -> str:
    """Cut by computed bounds: the numbers of all elements, cut alike, say where each goes."""
    sizes = write.sizes(node.input[0])
    count = write.add("Size", node.input[0])
    numbers = write.add("Range", write.index(0), count, write.index(1))
    places = write.add("Slice", write.add("Reshape", numbers, sizes), *node.input[1:])
    flat = write.add("Reshape", write.zeros_like(node.input[0], upstream), write.integers(-1))
    line = write.integers(-1)
    filled = write.add(
        "ScatterElements", flat, write.add("Reshape", places, line), write.add("Reshape", upstream, line), axis=0
    )
    return write.add("Reshape", filled, sizes)


@differentiates("Trilu")
def triangle(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """The same triangle of dY"""
    made = write.add("Trilu", upstream[0], *node.input[1:], upper=attribute(node, "upper", 1))
    return [made, *([None] * (len(node.input) - 1))]
