"""Flattenings: nodes that merge channels with places into one axis of columns."""

from typing import Final

import onnx_ir

from onnxadmm.rules.facts import Facts
from onnxadmm.rules.node import LockNodeError
from onnxadmm.rules.runs import runs

_OPERATORS: Final = ("Flatten", "Reshape")


def flattens(facts: Facts, node: onnx_ir.Node, axis: int) -> bool:
    """Tell whether a node merges axes into one, of which one at most carries units: the others are places.

    Heads that are put side by side are no places: they and what they hold are units, or were.

    Args:
        facts: of the model as far as the node.
        node: any node.
        axis: of its result.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS or node.inputs[0] is None:
        return False
    source, result = node.inputs[0].name or "", node.outputs[0].name or ""
    before, after = facts.shapes.shape(source), facts.shapes.shape(result)
    labels, free = facts.axes.get(source), facts.shapes.dynamic(source)
    if before is None or after is None or labels is None or free is None:
        return False
    try:
        merged = next((left for left, right in runs(before, after) if right == [axis]), [])
    except LockNodeError:
        return False
    if len(merged) < 2 or any(free[index] for index in merged):
        return False
    return sum(labels[index] is not None for index in merged) <= 1
