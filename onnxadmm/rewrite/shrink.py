"""The rewriter: slices every tensor that a removed unit occupies."""

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.constants import constant, constants_by_name, set_constant
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.repeated import merge_repeated
from onnxadmm.graph.shared import merge_shared
from onnxadmm.rewrite.clean import remove_dead, remove_whole_picks
from onnxadmm.rewrite.record import add_record
from onnxadmm.rewrite.vanish import remove_vanished
from onnxadmm.rules.adapt import adapt_nodes
from onnxadmm.rules.edit import Positions
from onnxadmm.units.units import Units


def shrink(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
    """Return a copy of the model without the removed units; names, inputs, outputs, opset and metadata stay.

    The result computes what ``mask`` of the same arguments computes. What was done is added to the records in the
    model's ``metadata_props``. Model-local functions are written out where they are called, since two calls may lose
    different units. A Gather all of whose columns stay is taken out, and a branch of a sum that keeps none of its units
    (see ``may_vanish``). When nothing is removed the model is handed back as it is, but for these.

    Args:
        model: the model the units were found in; it is not changed.
        units: its units.
        keep: which units stay, bool ``[units.count]``.

    Raises:
        ModelFileError: something is wrong with the model that no check has foreseen.
    """
    if bool(keep.all()) and not units.columns:
        return model
    with analysing(model, "a rewrite without units"):
        return _shrunk(model, units, keep)


def _shrunk(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
    kept = {name: axes for name in units.losing(keep) if (axes := units.positions(name, keep)) is not None}
    small = clone(inline(model, cut=kept))
    used = {value.name for value in small.ir.graph.initializers.values() if value.uses()}
    for name, value in constants_by_name(small).items():
        positions = kept.get(name)
        if positions is not None:
            array = constant(value)
            assert array is not None  # labelled constants have values
            set_constant(small, value, cut(array, positions))
    remove_vanished(small, units, keep)
    adapt_nodes(small, units.shapes, kept.get)
    remove_whole_picks(small, units, kept)
    if bool(keep.all()):
        remove_dead(small, used)
        return small
    merge_repeated(small)
    merge_shared(small)
    _restate_shapes(small, kept)
    remove_dead(small, used)
    add_record(small, model, units, keep)
    return small


def cut(array: np.ndarray, positions: tuple[Positions | None, ...]) -> np.ndarray:
    """Take the kept positions of every axis; ``[blocks, kept]`` positions hold for equal runs of axis 0.

    Returns:
        a new, contiguous array of the same dtype.
    """
    ragged = [axis for axis, kept in enumerate(positions) if kept is not None and kept.ndim > 1]
    for axis, kept in enumerate(positions):
        if kept is None or kept.ndim > 1:
            continue
        if axis == 0 and ragged:
            continue
        array = np.take(array, kept, axis=axis)
    rows = positions[0]
    for axis in ragged:
        blocks = positions[axis]
        assert blocks is not None  # ragged axes have positions
        size = array.shape[0] // blocks.shape[0]
        parts = []
        for number, inside in enumerate(blocks):
            start = number * size
            block = array[start : start + size]
            if rows is not None:
                block = block[rows[(rows >= start) & (rows < start + size)] - start]
            parts.append(np.take(block, inside, axis=axis))
        array = np.concatenate(parts)
    return np.ascontiguousarray(array)


def put_back(array: np.ndarray, part: np.ndarray, positions: tuple[Positions | None, ...]) -> np.ndarray:
    """Return a copy of an array in which the kept positions hold what ``cut`` would have taken of them.

    Args:
        array: the whole.
        part: of the shape that ``cut`` gives.
        positions: as for ``cut``.
    """
    whole = np.array(array)
    whole.reshape(-1)[cut(np.arange(array.size).reshape(array.shape), positions)] = part
    return whole


def _restate_shapes(model: Model, kept: dict[str, tuple[Positions | None, ...]]) -> None:
    """Correct the recorded shapes of intermediate values; those of inputs and outputs never change."""
    for node in model.ir.graph:
        for value in node.outputs:
            positions = kept.get(value.name or "")
            if value.shape is None or positions is None or value.is_graph_output():
                continue
            if len(value.shape) != len(positions):
                value.shape = None
                continue
            dims = list(value.shape.dims)
            # A free length that heads are merged with has no number, and what its symbol says is no longer so.
            value.shape = onnx_ir.Shape(
                [
                    dim if axis is None else int(axis.shape[-1]) if isinstance(dim, int) else onnx_ir.SymbolicDim(None)
                    for dim, axis in zip(dims, positions, strict=True)
                ]
            )
