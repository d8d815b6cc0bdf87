"""Vectors of sizes that are computed while running: what they come to by themselves, and what they are joined of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constant
from onnxadmm.graph.fold import evaluate
from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.node import NodeView

Elements = Sequence[int | None]
#: What vectors of sizes are moved by, from Shape to where they are read.
_MOVES = frozenset({"Concat", "Slice", "Gather", "Unsqueeze", "Squeeze", "Identity"})


def shown_axes(node: NodeView, rank: int) -> range:
    """Return the axes whose sizes a Shape node gives."""
    return range(rank)[node.integer("start", 0) : node.integer("end", rank)]


def readers_of_shapes(
    vector: onnx_ir.Value, wanted: Elements, *, after: Callable[[onnx_ir.Node], Elements | None], opset: int
) -> list[onnx_ir.Node]:
    """Return the nodes that a vector takes sizes of a tensor by, if it is ``wanted`` once these are the sizes left.

    Args:
        vector: read by one node.
        wanted: its elements; None for those that depend on a free input dimension.
        after: gives what a Shape node gives after removal; None where that is not known.
        opset: of the default domain.

    Returns:
        nodes that read the results of Shape nodes, and nothing but this vector comes of; none where it is another.
    """
    readers: list[onnx_ir.Node] = []

    def elements(value: onnx_ir.Value) -> NDArray[Any]:
        array = constant(value)
        if array is not None:
            return array
        node = value.producer()
        if node is None or node.op_type not in _MOVES or node.domain not in ("", "ai.onnx") or not _is_read_once(value):
            raise LookupError(f"{value.name} is not moved to where it is read alone")
        operands: list[NDArray[Any] | None] = []
        for operand in node.inputs:
            source = None if operand is None else operand.producer()
            if source is None or source.op_type != "Shape":
                operands.append(None if operand is None else elements(operand))
                continue
            sizes = after(source)
            if sizes is None:
                raise LookupError(f"what {value.name} is taken from is not known")
            operands.append(np.array(sizes, np.object_))
            readers.append(node)
        return evaluate(onnx_ir.serde.serialize_node(node), operands, opset)[0]

    try:
        found = elements(vector)
    except Exception:  # whatever is raised on the way, it is not known
        return []
    return readers if found.ndim == 1 and list(found) == list(wanted) else []


def _is_read_once(value: onnx_ir.Value) -> bool:
    return len(tuple(value.uses())) == 1 and not value.is_graph_output()


def changed_parts(
    vector: onnx_ir.Value, shapes: Shapes, before: Elements, wanted: Elements
) -> dict[int, NDArray[Any]] | None:
    """Return which constants a vector has to be joined of so that it is ``wanted``.

    Args:
        vector: of sizes.
        shapes: before removal.
        before: its elements; None for those that depend on a free input dimension.
        wanted: likewise.

    Returns:
        arrays by the numbers of the operands of its Concat; None where there is none of which it alone comes, or where
        what changes is no constant.
    """
    node = vector.producer()
    if node is None or node.op_type != "Concat" or node.domain not in ("", "ai.onnx") or not _is_read_once(vector):
        return None
    changed: dict[int, NDArray[Any]] = {}
    start = 0
    for index, part in enumerate(node.inputs):
        shape = None if part is None else shapes.shape(part.name or "")
        if part is None or shape is None:
            return None
        end = start + shape[0]
        if list(before[start:end]) != list(wanted[start:end]):
            array = constant(part)
            if array is None:
                return None
            changed[index] = np.asarray(wanted[start:end], array.dtype)
        start = end
    return changed
