"""Gates on activations: a Mul in front of each sum that reads units without a weight of its own."""

from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import free_name, new_initializer, value_names
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, clone
from onnxadmm.units.units import Gate, Units


def open_gates(model: Model, units: Units) -> Model:
    """Return a copy of the model with a Mul by ones at every gate, the model itself where there is none.

    It computes what the model computes, and its constants of ones read units as weights do: this is what trains.
    """
    if not units.gates:
        return model
    gated = clone(inline(model))
    for gate in units.gates:
        insert_gate(gated, gate, np.ones(gate.reader.units.shape, np.bool_))
    return gated


def insert_gate(model: Model, gate: Gate, keep: NDArray[np.bool_]) -> None:
    """Multiply an activation by ones and zeros before it is summed over, in place.

    Args:
        model: holds the node in its main graph.
        gate: where.
        keep: which positions of the axis stay, bool ``[n]``.
    """
    node = node_of(model, gate)
    assert node is not None  # the caller has inlined the functions
    operand = node.inputs[gate.operand]
    assert operand is not None  # labels came with it
    taken = value_names(model)
    ones = new_initializer(model, gate.reader.tensor, gate_value(gate, keep), taken=taken)
    assert ones.name == gate.reader.tensor  # free when the units were found
    product = onnx_ir.Node("", "Mul", inputs=[operand, ones])
    product.outputs[0].name = free_name(f"{ones.name}d", taken)
    product.outputs[0].shape, product.outputs[0].type = operand.shape, operand.type
    node.prepend(product)
    node.replace_input_with(gate.operand, product.outputs[0])


def gate_value(gate: Gate, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Return what a gate multiplies by, in its type and shape.

    Args:
        keep: which positions of the axis stay, bool ``[n]``.
    """
    return keep.astype(gate.dtype.numpy()).reshape(gate.shape)


def node_of(model: Model, gate: Gate) -> onnx_ir.Node | None:
    """Return the node that sums, None where it is inside of a function."""
    return next((node for node in model.ir.graph if node.outputs and node.outputs[0].name == gate.result), None)
