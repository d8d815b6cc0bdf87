"""The masked original: same nodes, the readers of removed units set to zero."""

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constant, set_constant
from onnxadmm.graph.model import Model, clone
from onnxadmm.units.units import Units


def mask(model: Model, units: Units, keep: NDArray[np.bool_]) -> Model:
    """Return a copy of the model that cannot see the removed units.

    A unit whose readers are all zero is invisible to everything behind them, whatever lies between: biases,
    normalisation shifts, activations that map zero elsewhere.

    Args:
        model: the model the units were found in; it is not changed.
        units: its units.
        keep: which units stay, bool ``[units.count]``.
    """
    masked = clone(model)
    values = constants_by_name(masked)
    stays = np.append(keep, True)  # unit -1 is the last element: it always stays
    for reader in units.readers:
        removed = ~stays[reader.units]
        if not removed.any():
            continue
        value = values[reader.tensor]
        array = constant(value)
        assert array is not None  # readers name constants
        weight = np.array(array)
        blocks = weight.reshape(-1, weight.shape[0] // _blocks(removed), *weight.shape[1:])  # [blocks, rows, ...]
        for block, gone in zip(blocks, np.atleast_2d(removed), strict=True):
            np.moveaxis(block, reader.axis, 0)[gone] = 0
        set_constant(masked, value, weight)
    return masked


def _blocks(removed: NDArray[np.bool_]) -> int:
    return removed.shape[0] if removed.ndim > 1 else 1


def constants_by_name(model: Model) -> dict[str, onnx_ir.Value]:
    """Return every constant of the main graph: initializers and results of ``Constant`` nodes."""
    found = {name: value for name, value in model.ir.graph.initializers.items()}
    for node in model.ir.graph:
        if node.op_type == "Constant" and node.outputs[0].name:
            found[node.outputs[0].name] = node.outputs[0]
    return found
