"""Operators whose gradient in the engine leaves out that an operand is repeated to the shape of the result."""

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers
from onnxadmm.train.prepare.workspace import Workspace


@lowers("Pow")
def lower_pow(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with a base as large as the result and a floating-point exponent."""
    exponent = space.constants.get(node.input[1])
    if exponent is not None and exponent.dtype.kind in "iu":
        node.input[1] = space.constant(f"{node.input[1]}/float", exponent.astype(np.float32))
    return _with_whole_operands(space, node, (0,))


@lowers("Where")
def lower_where(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with branches as large as the result."""
    return _with_whole_operands(space, node, (1, 2))


def _with_whole_operands(space: Workspace, node: onnx.NodeProto, places: tuple[int, ...]) -> Nodes:
    """Expand the operands at some places to the shape of the result, constants that are not trained excepted."""
    out = space.shape(node.output[0])
    write = Writer(space, node)
    for place in places:
        name = node.input[place]
        fixed = name in space.constants and name not in space.protected
        if not fixed and out is not None and space.shape(name) not in (None, out):
            node.input[place] = write.add("Expand", name, write.integers(*out))
    return [*write.nodes, node]
