"""Convolutions in groups."""

import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


@lowers("Conv")
def lower_conv(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A grouped Conv in one dimension as one in two, in three dimensions as one Conv per group.

    The engine's gradient by the weight of a grouped Conv is right in two dimensions only.
    """
    groups = attribute(node, "group", 1)
    if groups == 1:
        return [node]
    shape = need_shape(space, node, node.input[0])
    if len(shape) == 4:
        return [node]
    return _conv_of_a_line(space, node) if len(shape) == 3 else _conv_by_groups(space, node, groups)


def _conv_of_a_line(space: Workspace, node: onnx.NodeProto) -> Nodes:
    out, weight = need_shape(space, node, node.output[0]), need_shape(space, node, node.input[1])
    write = Writer(space, node)
    axis = write.integers(2)
    plane = write.add("Unsqueeze", node.input[0], axis)  # [N, C, L] -> [N, C, 1, L]
    kernel = write.add("Unsqueeze", node.input[1], axis)
    first, last = attribute(node, "pads", [0, 0])
    result = write.add(
        "Conv",
        plane,
        kernel,
        *node.input[2:],
        group=attribute(node, "group", 1),
        kernel_shape=[1, weight[2]],
        strides=[1, *attribute(node, "strides", [1])],
        dilations=[1, *attribute(node, "dilations", [1])],
        pads=[0, first, 0, last],
    )
    return write.finish(write.add("Reshape", result, write.integers(*out)))


def _conv_by_groups(space: Workspace, node: onnx.NodeProto, groups: int) -> Nodes:
    shape, weight = need_shape(space, node, node.input[0]), need_shape(space, node, node.input[1])
    write = Writer(space, node)
    channels = write.split(node.input[0], axis=1, sizes=[shape[1] // groups] * groups)
    kernels = write.split(node.input[1], axis=0, sizes=[weight[0] // groups] * groups)
    biased = len(node.input) > 2 and bool(node.input[2])
    biases = write.split(node.input[2], axis=0, sizes=[weight[0] // groups] * groups) if biased else []
    kept = {
        name: value
        for name in ("kernel_shape", "strides", "dilations", "pads")
        if (value := attribute(node, name, None)) is not None
    }
    parts = [
        write.add("Conv", channels[index], kernels[index], *biases[index : index + 1], **kept)
        for index in range(groups)
    ]
    return write.finish(write.add("Concat", *parts, axis=1))
