"""Gradients of what picks and places by indices: what was picked several times adds up.

onnxruntime's ScatterND adds up twenty times as fast as its ScatterElements, and in parallel threads without a lock:
where two of them meet, one is lost. So it is for sessions of one thread.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from onnxadmm.train.gradients.moves import spread
from onnxadmm.train.gradients.writer import Backward, Made, differentiates
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Array

#: Passes over a gradient that cost less than adding it up by indices.
MOST_TURNS = 8


@differentiates("Gather")
def gather(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """Rows of dY added to the rows they were read from"""
    shape, places = write.known(node.input[0]), write.value(node.input[1])
    axis = attribute(node, "axis", 0) % len(shape)
    if places is not None and (made := _put_back(write, upstream[0], places, shape, axis)) is not None:
        return [made, None]
    # The axis in front: [..., axis, ...] -> [axis, ...]
    whole = write.known(node.output[0])
    many = len(whole) - len(shape) + 1  # axes of the indices
    value, table = upstream[0], write.zeros_like(node.input[0], upstream[0])
    order = [axis, *(place for place in range(len(shape)) if place != axis)]
    if axis:
        moved = range(axis, axis + many)
        value = write.add("Transpose", value, perm=[*moved, *(at for at in range(len(whole)) if at not in moved)])
        table = write.add("Transpose", table, perm=order)
    row = prod(shape) // max(shape[axis], 1)
    count = prod(whole[axis : axis + many])
    flat = write.accumulate(
        write.reshape(table, [shape[axis], row]),
        write.reshape(write.as_int64(node.input[1]), [count, 1]),
        write.reshape(value, [count, row]),
        width=row,
    )
    made = write.reshape(flat, [shape[place] for place in order])
    if axis:
        made = write.add("Transpose", made, perm=[order.index(place) for place in range(len(shape))])
    return [made, None]


def _put_back(write: Backward, value: str, places: Array, shape: tuple[int, ...], axis: int) -> str | None:
    """Entries of an axis that were read at constant places, back there; None where one was read too often."""
    flat = places.reshape(-1) % shape[axis]
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], flat[order])
    turn = np.empty(len(flat), np.int64)  # how often the same entry was read before
    turn[order] = np.arange(len(flat)) - starts
    turns = int(turn.max(initial=-1)) + 1
    if not 1 <= turns <= MOST_TURNS:
        return None
    if places.ndim != 1:
        value = write.reshape(value, [*shape[:axis], len(flat), *shape[axis + 1 :]])
    total = None
    for number in range(turns):
        chosen = np.flatnonzero(turn == number)
        part = value if len(chosen) == len(flat) else write.gather(value, chosen.tolist(), axis=axis)
        part = spread(write, part, flat[chosen], shape[axis], axis=axis, rank=len(shape))
        total = part if total is None else write.add("Add", total, part)
    return total


@differentiates("GatherElements")
def gather_elements(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """Elements of dY added to those they were read from"""
    zeros = write.zeros_like(node.input[0], upstream[0])
    kept = {"axis": attribute(node, "axis", 0)}
    return [write.add("ScatterElements", zeros, node.input[1], upstream[0], reduction="add", **kept), None]


@differentiates("GatherND")
def gather_tuples(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """Pieces of dY added to those they were read from, each counted as a row"""
    shape, indices = write.known(node.input[0]), write.known(node.input[1])
    batch, length = attribute(node, "batch_dims", 0), indices[-1]
    rows = _row_numbers(write, node, shape, indices, batch)
    row = prod(shape[batch + length :])
    count = prod(indices[:-1])
    flat = write.accumulate(
        write.reshape(write.zeros_like(node.input[0], upstream[0]), [prod(shape[: batch + length]), row]),
        write.reshape(rows, [count, 1]),
        write.reshape(upstream[0], [count, row]),
        width=row,
    )
    return [write.shaped_like(flat, node.input[0]), None]


def _row_numbers(
    write: Backward, node: onnx.NodeProto, shape: tuple[int, ...], indices: tuple[int, ...], batch: int
) -> str:
    """Where each tuple of indices points, counted along all axes it names together: ``[indices[:-1]]``."""
    counted = np.array(shape[batch : batch + indices[-1]], np.int64)
    strides = np.array([prod(counted[place + 1 :]) for place in range(len(counted))], np.int64)
    given = write.as_int64(node.input[1])
    below = write.add("Less", given, write.index(0))
    whole = write.add("Where", below, write.add("Add", given, write.array(counted)), given)
    rows = write.sum(write.add("Mul", whole, write.array(strides)), [-1], keep=False)
    if batch:
        start = np.arange(prod(shape[:batch])) * int(prod(counted))
        rows = write.add("Add", rows, write.array(start.reshape(*shape[:batch], *[1] * (len(indices) - 1 - batch))))
    return rows


@differentiates("ScatterElements")
def scatter_elements(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY with zeros where it was overwritten, and dY of those places"""
    kept = {"axis": attribute(node, "axis", 0)}
    first = third = None
    if write.wants(0):
        zeros = write.zeros_like(node.input[2], upstream[0])
        first = write.add("ScatterElements", upstream[0], node.input[1], zeros, **kept)
    if write.wants(2):
        third = write.add("GatherElements", upstream[0], node.input[1], **kept)
    return [first, None, third]


@differentiates("ScatterND")
def scatter_tuples(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY with zeros where it was overwritten, and dY of those places"""
    first = third = None
    if write.wants(0):
        first = write.add("ScatterND", upstream[0], node.input[1], write.zeros_like(node.input[2], upstream[0]))
    if write.wants(2):
        third = write.add("GatherND", upstream[0], node.input[1])
    return [first, None, third]


@differentiates("TopK")
def largest(write: Backward, node: onnx.NodeProto, upstream: Sequence[str]) -> Made:
    """dY at the places of the largest"""
    if not upstream[0]:
        return [None, None]
    zeros = write.zeros_like(node.input[0], upstream[0])
    kept = {"axis": attribute(node, "axis", -1)}
    return [write.add("ScatterElements", zeros, node.output[1], upstream[0], **kept), None]
