"""Lowerings that move, repeat, mix or pool positions: blocks, padding, resizing, norms of windows."""

import numpy as np
import onnx

from onnxadmm.train.lowering.installed import answer_of
from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_constant, need_shape, refusal
from onnxadmm.train.prepare.nodes import attribute, set_attribute
from onnxadmm.train.prepare.workspace import Array, Workspace

#: Longest axis that is resized by a matrix.
LONGEST_RESIZED = 4096


@lowers("DepthToSpace")
def lower_depth_to_space(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Reshape, Transpose, Reshape."""
    batch, channels, height, width = need_shape(space, node, node.input[0])
    block = attribute(node, "blocksize", 1)
    depth = channels // block**2
    write = Writer(space, node)
    if attribute(node, "mode", "DCR") == "DCR":
        split, order = (batch, block, block, depth, height, width), [0, 3, 4, 1, 5, 2]
    else:
        split, order = (batch, depth, block, block, height, width), [0, 1, 4, 2, 5, 3]
    moved = write.add("Transpose", write.reshape(node.input[0], split), perm=order)
    return write.finish(write.reshape(moved, (batch, depth, height * block, width * block)))


@lowers("SpaceToDepth")
def lower_space_to_depth(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Reshape, Transpose, Reshape."""
    batch, channels, height, width = need_shape(space, node, node.input[0])
    block = attribute(node, "blocksize", 1)
    write = Writer(space, node)
    split = write.reshape(node.input[0], (batch, channels, height // block, block, width // block, block))
    moved = write.add("Transpose", split, perm=[0, 3, 5, 1, 2, 4])
    return write.finish(write.reshape(moved, (batch, channels * block**2, height // block, width // block)))


@lowers("Pad")
def lower_pad(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A Gather per axis for what repeats elements and for what is cut off; zeros stay a Pad of all axes."""
    shape = need_shape(space, node, node.input[0])
    amounts, axes = need_constant(space, node, 1), need_constant(space, node, 3)
    assert amounts is not None  # Pad has no form without it
    chosen = list(range(len(shape))) if axes is None else [int(axis) % len(shape) for axis in axes]
    mode = attribute(node, "mode", "constant")
    if mode == "constant" and axes is None and (amounts >= 0).all():
        return [node]
    write = Writer(space, node)
    value = write.add("Identity", node.input[0])
    added = np.zeros((2, len(shape)), np.int64)
    for index, axis in enumerate(chosen):
        before, after = int(amounts[index]), int(amounts[len(chosen) + index])
        low, high = max(-before, 0), shape[axis] - max(-after, 0)
        places = np.arange(shape[axis])[low:high]
        added[:, axis] = max(before, 0), max(after, 0)
        if mode != "constant" and added[:, axis].any():
            places = np.pad(places, (max(before, 0), max(after, 0)), mode=mode)
        if not np.array_equal(places, np.arange(shape[axis])):
            value = write.gather(value, places.tolist(), axis=axis)
    if mode == "constant" and added.any():
        value = write.add("Pad", value, write.array(added.reshape(-1)), *node.input[2:3], mode="constant")
    return write.finish(value)


@lowers("Resize")
def lower_resize(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Each resized axis multiplied by a matrix, which is what the operator makes of the unit matrix.

    Every mode is linear and works axis by axis. Rows that only pick an element become a Gather.
    """
    shape, out = need_shape(space, node, node.input[0]), need_shape(space, node, node.output[0])
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise refusal(node, expected="no cropping", found="tf_crop_and_resize", way_out="crop with Slice instead")
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refusal(node, expected="the policy stretch", found="another one", way_out="resize to literal sizes")
    scales, sizes = need_constant(space, node, 2), need_constant(space, node, 3)
    axes = [axis % len(shape) for axis in attribute(node, "axes", list(range(len(shape))))]
    write = Writer(space, node)
    value = write.add("Identity", node.input[0])
    for index, axis in enumerate(axes):
        scale = float(scales[index]) if scales is not None and scales.size else None
        if shape[axis] > LONGEST_RESIZED or out[axis] > LONGEST_RESIZED:
            raise refusal(
                node,
                expected=f"at most {LONGEST_RESIZED} positions on an axis",
                found=f"{shape[axis]} to {out[axis]}",
                way_out="train on smaller inputs",
            )
        if (sizes is None and scale == 1.0) or (scale is None and shape[axis] == out[axis]):
            continue
        matrix = _resized_identity(space, node, shape[axis], out[axis], scale)
        ones = matrix == 1.0
        if ((matrix == 0.0) | ones).all() and (ones.sum(axis=1) == 1).all():
            value = write.gather(value, ones.argmax(axis=1).tolist(), axis=axis)
        else:
            value = write.along(value, matrix, axis=axis, rank=len(shape))
    return write.finish(value)


def _resized_identity(space: Workspace, node: onnx.NodeProto, size: int, out: int, scale: float | None) -> Array:
    """Matrix [out, size] of a Resize of one axis."""
    scales = sizes = None
    if scale is None:
        sizes = np.array([size, out], np.int64)
    else:
        scales = np.array([1.0, scale], np.float32)
    single = onnx.NodeProto()
    single.CopyFrom(node)
    set_attribute(single, "axes", None)
    operands = {"identity": np.eye(size, dtype=np.float32), "roi": None, "scales": scales, "sizes": sizes}
    # Rows are found one by one in ONNX's reference.
    matrix = answer_of(space, single, operands, way_out="resize by nearest or linear interpolation").T
    assert matrix.shape == (out, size)
    return matrix
