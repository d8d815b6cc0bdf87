"""Slices."""

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
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
