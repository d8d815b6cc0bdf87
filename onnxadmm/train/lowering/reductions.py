"""Lowerings of reductions and running sums."""

import numpy as np
import onnx

from onnxadmm.train.lowering.installed import answer_of
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


@lowers("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare")
def lower_reduce_sum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """sum |x|, sqrt sum x^2 (with gradient 0 at 0), log sum x, sum x^2"""
    write = Writer(space, node)
    value, axes = node.input[0], reduced_axes(space, node)
    if not axes and _hands_on(space, node):
        return write.finish(write.add("Identity", value))
    if node.op_type == "ReduceL1":
        value = write.add("Abs", value)
    elif node.op_type != "ReduceLogSum":
        value = write.add("Mul", value, value)
    total = write.sum(value, axes, keep=_keeps(node)) if axes else write.add("Identity", value)
    if node.op_type == "ReduceL2":
        total = safe_root(write, total)
    elif node.op_type == "ReduceLogSum":
        total = write.add("Log", total)
    return write.finish(total)


def _hands_on(space: Workspace, node: onnx.NodeProto) -> bool:
    """Whether a reduction over no axes gives its operand as it is, as in onnxruntime 1.19.

    1.32 applies to each element what it would apply to a sum: |x|, x^2, log x. None of them is -2 at -2.
    """
    nowhere = np.array([], np.int64) if len(node.input) > 1 and node.input[1] else None
    operands = {"value": np.array([-2.0], np.float32), "axes": nowhere}
    return bool(answer_of(space, node, operands, way_out="name the axes to reduce")[0] == -2.0)


def safe_root(write: Writer, square: str) -> str:
    """sqrt(s), and 0 with gradient 0 where s is 0."""
    empty = write.add("Equal", write.stop(square), write.scalar(0.0))
    root = write.add("Sqrt", write.add("Where", empty, write.scalar(1.0), square))
    return write.add("Where", empty, write.scalar(0.0), root)


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
