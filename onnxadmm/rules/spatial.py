"""Operators on images: resizing, rearranging between channels and space, sampling."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.labels import LabelArray
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_SAMPLES = "samples it"


def _resized_axes(axes: Sequence[int] | None, rank: int) -> list[int]:
    return list(range(rank)) if axes is None else [axis % rank for axis in axes]


def _rewrite_sizes(edit: Edit) -> None:
    """Sizes name the length of every axis, also of those that are not resized."""
    data, result = edit.operand(0), edit.result()
    sizes = edit.partial_value(3)
    if not sizes or not result.shrinks:
        return
    axes = _resized_axes(edit.integers("axes"), data.rank)
    wanted = [None if size is None else result.size(axis) for axis, size in zip(axes, sizes, strict=True)]
    if wanted != list(sizes):
        edit.set_operand(3, wanted)


@rule(
    "Resize", rewrite=_rewrite_sizes, indices=(1, 2, 3),
    note="resizes axes, which lock; passes those whose scale is one",
)  # fmt: skip
def resize(visit: Visit) -> None:
    """Operands X, roi, scales, sizes; X and scales below opset 11."""
    data = visit.operand(0)
    shape = visit.result_shape()
    axes = _resized_axes(visit.integers("axes"), data.rank)
    plain = (
        visit.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
        and visit.text("keep_aspect_ratio_policy", "stretch") == "stretch"
    )
    untouched = set(range(data.rank)) - set(axes)
    scales = visit.value(2 if visit.opset_version >= 11 else 1)
    sizes = visit.partial_value(3) if visit.opset_version >= 11 else None
    if scales is not None and scales.size == len(axes):
        untouched |= {axis for axis, scale in zip(axes, scales, strict=True) if plain and scale == 1}
    elif sizes is not None:
        same = {axis for axis, size in zip(axes, sizes, strict=True) if plain and size == data.shape[axis]}
        untouched |= same
    _set_resized(visit, data.axes, shape, untouched)


def _set_resized(visit: Visit, axes: Sequence[Axis], shape: Sequence[int], untouched: set[int]) -> None:
    for index, axis in enumerate(axes):
        if index not in untouched:
            visit.lock(axis, "resizes it")
    visit.set_result([axis if index in untouched else None for index, axis in enumerate(axes)])


@rule("Upsample", note="resizes axes, which lock; passes those whose scale is one")
def upsample(visit: Visit) -> None:
    data = visit.operand(0)
    value = visit.value(1)
    scales = visit.numbers("scales") or ([] if value is None else value.reshape(-1).tolist())
    untouched = {axis for axis, scale in enumerate(scales) if scale == 1}
    _set_resized(visit, data.axes, visit.result_shape(), untouched)


def _tie_rows(visit: Visit, matrix: LabelArray) -> LabelArray:
    """Tie all rows to the first and return it."""
    first: LabelArray = matrix[0]
    for row in matrix[1:]:
        visit.tie(first, row)
    return first


@rule("DepthToSpace", note="ties the channels that become one channel's pixels")
def depth_to_space(visit: Visit) -> None:
    """``[N, r*r*C, H, W]`` or, in mode CRD, ``[N, C*r*r, H, W]`` -> ``[N, C, r*H, r*W]``."""
    data = visit.operand(0)
    positions = visit.integer("blocksize", 1) ** 2
    visit.lock_operand(data, "interleaves it", except_axes=(0, 1))
    channels = data.axes[1]
    if channels is not None:
        columns = visit.text("mode", "DCR") == "CRD"
        channels = _tie_rows(visit, channels.reshape(-1, positions).T if columns else channels.reshape(positions, -1))
        if visit.result_shape()[1] == 1:
            visit.lock(channels, "makes a single channel of it")
    visit.set_result([data.axes[0], channels, None, None])


@rule("SpaceToDepth", note="ties a channel to those that its pixels become")
def space_to_depth(visit: Visit) -> None:
    """``[N, C, r*H, r*W]`` -> ``[N, r*r*C, H, W]``."""
    data = visit.operand(0)
    visit.lock_operand(data, "interleaves it", except_axes=(0, 1))
    channels = data.axes[1]
    positions = visit.integer("blocksize", 1) ** 2
    visit.set_result([data.axes[0], None if channels is None else np.tile(channels, positions), None, None])


@rule("Col2Im", note="ties the positions of a channel's patches")
def columns_to_image(visit: Visit) -> None:
    """``[N, C*k, L]`` -> ``[N, C, ...]``."""
    data = visit.operand(0)
    shape = visit.result_shape()
    visit.lock(data.axes[2], "lays it out in space")
    channels = data.axes[1]
    if channels is not None:
        channels = _tie_rows(visit, channels.reshape(shape[1], -1).T)
        if shape[1] == 1:
            visit.lock(channels, "makes a single channel of it")
    visit.set_result([data.axes[0], channels, *([None] * (len(shape) - 2))])


@rule("GridSample", note="samples space, which locks; passes the channels")
def grid_sample(visit: Visit) -> None:
    data, grid = visit.operand(0), visit.operand(1)
    visit.lock_operand(data, _SAMPLES, except_axes=(0, 1))
    visit.lock_operand(grid, _SAMPLES, except_axes=(0,))
    visit.set_result([visit.tie(data.axes[0], grid.axes[0]), data.axes[1], *([None] * (data.rank - 2))])


@rule("AffineGrid", effect="locks", note="makes coordinates from its matrices, which lock")
def affine_grid(visit: Visit) -> None:
    theta = visit.operand(0)
    visit.lock_operand(theta, "makes coordinates from it")
    visit.set_result([None] * len(visit.result_shape()))


@rule("RoiAlign", "MaxRoiPool", note="samples space, which locks; passes the channels")
def regions(visit: Visit) -> None:
    data = visit.operand(0)
    for index in range(visit.operand_count):
        if visit.has_operand(index):
            operand = visit.operand(index)
            visit.lock_operand(operand, _SAMPLES, except_axes=(1,) if index == 0 else ())
    visit.set_result([None, data.axes[1], None, None])


@rule("MaxUnpool", effect="locks", note="places positions by indices that count channels, which lock")
def max_unpool(visit: Visit) -> None:
    raise LockNodeError("places positions by indices that count channels")


@rule("CenterCropPad", effect="locks", note="crops or pads its axes, which lock; passes the others")
def center_crop_pad(visit: Visit) -> None:
    data = visit.operand(0)
    axes = _resized_axes(visit.integers("axes"), data.rank)
    for index in axes:
        visit.lock(data.axes[index], "crops or pads it")
    visit.set_result([None if index in axes else axis for index, axis in enumerate(data.axes)])
