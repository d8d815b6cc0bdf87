"""Slices and pieces."""

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
from onnxadmm.train.prepare.differentiable import Trace
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("Slice")
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


def slice_pieces(space: Workspace, trace: Trace) -> int:
    """Take each piece by a Slice where no gradient comes back from some of a Split; returns how often.

    The engine puts together the gradients it has: without some of them the whole is too short.
    """

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        split = node.op_type == "Split" and node.domain in ("", "ai.onnx") and trace.holds(node)
        if not split or all(name in trace.needed for name in node.output):
            return None
        axis = attribute(node, "axis", 0)
        write = Writer(space, node)
        start = 0
        for name in node.output:
            end = start + need_shape(space, node, name)[axis]
            piece = write.add("Slice", node.input[0], *(write.integers(value) for value in (start, end, axis)))
            write.set_output(piece, name)
            start = end
        return write.nodes

    return space.replace_nodes(rewrite)
