"""Branches of which no unit stays: the sum that they went into has a constant in their place, or nothing."""

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import new_initializer, value_names
from onnxadmm.graph.model import Model
from onnxadmm.graph.unread import drop_unread
from onnxadmm.units.units import Units
from onnxadmm.units.vanishing import Branch, branches, emptied


def remove_vanished(model: Model, units: Units, keep: NDArray[np.bool_]) -> None:
    """Take the branches out that groups end of which no unit stays, in place, with all that they alone need.

    Args:
        model: with functions written out; its constants have been cut, its nodes have not.
        units: of the model before.
        keep: which units stay, bool ``[units.count]``.
    """
    if gone := emptied(units, keep):
        found = branches(model, units)
        for branch in [branch for group in gone for branch in found.get(group.start, ())]:
            _take_out(model, branch)


def _take_out(model: Model, branch: Branch) -> None:
    if branch.total.graph is None:  # it went with another branch, which it was inside of
        return
    total, result, unread = branch.total, branch.total.outputs[0], [branch.total.inputs[branch.operand]]
    if branch.constant.any() or result.is_graph_output():  # whose name has to stay
        total.replace_input_with(branch.operand, _left(model, branch))
    else:
        rest = branch.rest
        for use in list(result.uses()):
            use.node.replace_input_with(use.idx, rest)
        model.ir.graph.remove(total, safe=True)
    drop_unread(model, unread)


def _left(model: Model, branch: Branch) -> onnx_ir.Value:
    """What is left of a branch: a constant of the model where it is one of the same shape, else a new one."""
    (value, *others) = branch.added or (None,)
    if value is not None and not others and value.shape is not None and value.shape.numpy() == branch.constant.shape:
        return value
    name = f"{branch.reader.outputs[0].name}_constant"
    return new_initializer(model, name, branch.constant, taken=value_names(model))
