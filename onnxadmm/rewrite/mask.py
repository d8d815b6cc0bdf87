"""The masked original: same nodes, the readers of removed units set to zero, and gates where activations are summed."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import PlanError
from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.branches import write_out_branches
from onnxadmm.graph.computed import write_out_computed
from onnxadmm.graph.constants import constant, constants_by_name, set_constant
from onnxadmm.graph.functions import inline_functions
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, clone
from onnxadmm.rewrite.gates import insert_gate, node_of
from onnxadmm.rules.facts import ZeroPoint
from onnxadmm.units.units import Units

Array = NDArray[Any]


def mask(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
    """Return a copy of the model that cannot see the removed units.

    A unit whose readers are all zero is invisible to everything behind them, whatever lies between: biases,
    normalisation shifts, activations that map zero elsewhere. A sum over an activation has no weight that could be
    zero: there a Mul by ones and zeros is put in.

    Args:
        model: the model the units were found in; it is not changed.
        units: its units.
        keep: which units stay, bool ``[units.count]``.

    Raises:
        ModelFileError: something is wrong with the model that no check has foreseen.
    """
    with analysing(model, "a mask"):
        return _masked(model, units, keep)


def _masked(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
    stays = np.append(keep, True)  # unit -1 is the last element: it always stays
    gates = [gate for gate in units.gates if not stays[gate.reader.units].all()]
    readers = {reader.tensor for reader in units.readers if not stays[reader.units].all()}
    losing = units.losing(keep)
    # What else is computed from a weight, as queries from a part of it and a constant, keeps its value.
    masked = clone(write_out_computed(model, cut=losing))
    values = constants_by_name(masked)
    if (
        not readers <= values.keys()  # a weight inside of a function may be masked in one call and not in another
        or any(node_of(masked, gate) is None for gate in gates)
        or _computes_inside(model, losing)
    ):
        masked = clone(inline(model))
        values = constants_by_name(masked)
    names = {reader.tensor for reader in units.readers} | {point.tensor for point in units.zero_points.values()}
    arrays = {name: constant(values[name]) for name in names if name in values}
    known = {name: array for name, array in arrays.items() if array is not None}
    for name, array in without_units(known, units, keep).items():
        set_constant(masked, values[name], array)
    for gate in gates:
        insert_gate(masked, gate, stays[gate.reader.units])
    return masked


def _computes_inside(model: Model, cut: Collection[str]) -> bool:
    """Whether a function or a branch computes constants that are among ``cut``, or from what is."""
    plain = write_out_branches(inline_functions(model))
    return plain is not model and write_out_computed(plain, cut=cut) is not plain


def without_units(arrays: Mapping[str, Array], units: Units, keep: NDArray[np.bool_]) -> dict[str, Array]:
    """Return the weights that read removed units, with zeros where they do, by name.

    Args:
        arrays: constants by name: all that readers and zero points name.
        units: of the model.
        keep: which units stay, bool ``[units.count]``.
    """
    stays = np.append(keep, True)  # unit -1 is the last element: it always stays
    found: dict[str, Array] = {}
    for reader in units.readers:
        removed = ~stays[reader.units]
        if not removed.any():
            continue
        weight = found.setdefault(reader.tensor, np.array(arrays[reader.tensor]))
        blank = _blank(weight, arrays, units.zero_points.get(reader.tensor))
        blocks = weight.reshape(-1, weight.shape[0] // reader.block_count, *weight.shape[1:])  # [blocks, rows, ...]
        blanks = blank.reshape(blocks.shape)
        for block, empty, gone in zip(blocks, blanks, np.atleast_2d(removed), strict=True):
            np.moveaxis(block, reader.axis, 0)[gone] = np.moveaxis(empty, reader.axis, 0)[gone]
    return found


def _blank(weight: Array, arrays: Mapping[str, Array], point: ZeroPoint | None) -> Array:
    """Return what stands for zero at each element of a weight, in its shape."""
    array = None if point is None else arrays.get(point.tensor)
    if point is None or array is None:
        return np.broadcast_to(np.zeros((), weight.dtype), weight.shape)
    along = [1] * weight.ndim
    along[point.axis] = array.size
    return np.broadcast_to(array.reshape(along if array.size > 1 else ()), weight.shape)


def zero_connections(model: Model, zeros: Mapping[str, NDArray[np.bool_]]) -> Model:
    """Return a copy of the model with single weights set to zero, the model itself when there are none.

    Args:
        model: it is not changed.
        zeros: for each weight bool of its shape, True where it becomes zero.

    Raises:
        PlanError: a weight does not exist or has another shape.
    """
    if not zeros:
        return model
    result = clone(write_out_computed(model, cut=zeros))  # what is computed from a weight keeps its value
    values = constants_by_name(result)
    if any(name not in values for name in zeros):
        result = clone(inline(model, cut=zeros))  # weights of functions and branches, and computed ones
        values = constants_by_name(result)
    for name, where in zeros.items():
        array = constant(values[name]) if name in values else None
        if array is None or array.shape != where.shape:
            raise PlanError(
                f"weight {name!r} of the plan",
                expected=f"a constant of shape {list(where.shape)} in the model",
                found="none of that name" if array is None else f"shape {list(array.shape)}",
                way_out="make the plan anew for this model",
            )
        set_constant(result, values[name], np.where(where, np.zeros((), array.dtype), array))
    return result
