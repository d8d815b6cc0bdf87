"""Matrix products."""

import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("MatMul")
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


@lowers("Gemm")
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
