"""Lowerings of reductions and running sums."""

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_constant, need_shape, refusal
from onnxadmm.train.prepare.nodes import attribute, set_attribute
from onnxadmm.train.prepare.workspace import Workspace

#: Longest axis whose product is taken factor by factor.
MOST_FACTORS = 128


def reduced_axes(space: Workspace, node: onnx.NodeProto) -> list[int]:
    """Axes a reduction runs over, from its attribute or its input, none negative."""
    rank = len(need_shape(space, node, node.input[0]))
    given = need_constant(space, node, 1)
    axes = attribute(node, "axes", None) if given is None else [int(axis) for axis in given.reshape(-1)]
    if not axes:
        return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _keeps(node: onnx.NodeProto) -> bool:
    return bool(attribute(node, "keepdims", 1))


@lowers("ReduceMax", "ReduceMin")
def lower_reduce_extremum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The sum of what equals the extremum, divided by its number: equal elements share the gradient."""
    axes = reduced_axes(space, node)
    write = Writer(space, node)
    if not axes:
        return write.finish(write.add("Identity", node.input[0]))
    out = need_shape(space, node, node.output[0])
    value = node.input[0]
    stopped = write.stop(value)
    extremum = write.add(node.op_type, stopped, *_axes_operand(space, write, axes), keepdims=1, **_axes(space, axes))
    equal = write.add("Equal", stopped, extremum)
    number = write.sum(write.add("Cast", equal, to=onnx.TensorProto.FLOAT), axes)
    total = write.sum(write.add("Where", equal, value, write.scalar(0.0)), axes)
    return write.finish(write.reshape(write.add("Div", total, number), out))


def _axes_operand(space: Workspace, write: Writer, axes: list[int]) -> list[str]:
    return [write.integers(*axes)] if space.opset >= 18 else []


def _axes(space: Workspace, axes: list[int]) -> dict[str, list[int]]:
    return {} if space.opset >= 18 else {"axes": axes}


@lowers("ReduceL1")
def lower_reduce_l1(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """sum |x|"""
    write = Writer(space, node)
    return _finish_sum(write, write.add("Abs", node.input[0]), reduced_axes(space, node), node)


@lowers("ReduceSumSquare")
def lower_reduce_sum_square(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """sum x^2"""
    write = Writer(space, node)
    return _finish_sum(write, write.add("Mul", node.input[0], node.input[0]), reduced_axes(space, node), node)


@lowers("ReduceLogSum")
def lower_reduce_log_sum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """log sum x"""
    write = Writer(space, node)
    axes = reduced_axes(space, node)
    total = write.sum(node.input[0], axes, keep=_keeps(node)) if axes else node.input[0]
    return write.finish(write.add("Log", total))


@lowers("ReduceL2")
def lower_reduce_l2(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """sqrt sum x^2, with gradient 0 at 0"""
    write = Writer(space, node)
    axes = reduced_axes(space, node)
    square = write.add("Mul", node.input[0], node.input[0])
    total = write.sum(square, axes, keep=_keeps(node)) if axes else square
    return write.finish(safe_root(write, total))


def safe_root(write: Writer, square: str) -> str:
    """sqrt(s), and 0 with gradient 0 where s is 0."""
    empty = write.add("Equal", write.stop(square), write.scalar(0.0))
    root = write.add("Sqrt", write.add("Where", empty, write.scalar(1.0), square))
    return write.add("Where", empty, write.scalar(0.0), root)


def _finish_sum(write: Writer, value: str, axes: list[int], node: onnx.NodeProto) -> Nodes:
    return write.finish(write.sum(value, axes, keep=_keeps(node)) if axes else write.add("Identity", value))


@lowers("ReduceProd")
def lower_reduce_prod(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Factor times factor."""
    shape = need_shape(space, node, node.input[0])
    out = need_shape(space, node, node.output[0])
    write = Writer(space, node)
    value = node.input[0]
    for axis in reduced_axes(space, node):
        if shape[axis] > MOST_FACTORS:
            raise refusal(
                node,
                expected=f"a product of at most {MOST_FACTORS} factors",
                found=f"{shape[axis]} on axis {axis}",
                way_out="take the sum of logarithms instead",
            )
        factors = write.split(value, axis=axis, sizes=[1] * shape[axis])
        while len(factors) > 1:
            pairs = [write.add("Mul", *factors[at : at + 2]) for at in range(0, len(factors) - 1, 2)]
            factors = pairs + factors[2 * len(pairs) :]
        value = factors[0]
    return write.finish(write.reshape(value, out))


@lowers("CumSum")
def lower_cumulative_sum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The axis multiplied by a triangle of ones."""
    shape = need_shape(space, node, node.input[0])
    axis = need_constant(space, node, 1)
    assert axis is not None  # CumSum has no form without it
    place = int(axis.reshape(-1)[0]) % len(shape)
    size = shape[place]
    triangle = np.tril(np.ones((size, size), np.float32), -1 if attribute(node, "exclusive", 0) else 0)
    write = Writer(space, node)
    matrix = triangle.T if attribute(node, "reverse", 0) else triangle
    return write.finish(write.along(node.input[0], matrix, axis=place, rank=len(shape)))


@lowers("ReduceLogSumExp")
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
