"""Recurrent networks whose inputs have time on their first axis: they are pruned as they are, and not trained."""

from collections.abc import Iterator, Sequence

import onnx_ir

from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.operators.table import find

_RECURRENT = ("LSTM", "GRU", "RNN")
#: Operators that leave the first two axes where they are; elementwise ones do so as well.
_IN_PLACE = ("MatMul", "LayerNormalization", "Dropout")


def refuse_time_major(model: Model) -> None:
    """Refuse a model with an input that a recurrent layer runs along the first axis of, which is that of the samples.

    Raises:
        NotTrainableError: there is such an input.
    """
    graph = model.ir.graph
    for node in graph.all_nodes():
        recurrent = node.op_type in _RECURRENT and node.domain in ("", "ai.onnx")
        if not recurrent or "layout" in node.attributes or not node.inputs:
            continue
        for value, axes in _sources(node.inputs[0]):
            if value.is_graph_input() and value.name not in graph.initializers and axes[0] == 0:
                raise NotTrainableError(
                    f"input {value.name}",
                    expected="samples on axis 0",
                    found=f"time there, along which {node.op_type} ({node.name or node.outputs[0].name}) runs, and "
                    f"samples on axis {axes[1]}",
                    way_out="export it with the batch first (batch_first=True in PyTorch); plan, shrink, verify and "
                    "bench take it as it is",
                )


def _sources(value: onnx_ir.Value | None) -> Iterator[tuple[onnx_ir.Value, tuple[int, int]]]:
    """Yield what a value comes from, and which of its axes are the first and the second one of the value.

    Only operators are followed of which that is known.
    """
    pending: list[tuple[onnx_ir.Value | None, tuple[int, int]]] = [(value, (0, 1))]
    seen: set[tuple[int, tuple[int, int]]] = set()
    while pending:
        current, axes = pending.pop()
        if current is None or (id(current), axes) in seen:
            continue
        seen.add((id(current), axes))
        yield current, axes
        node = current.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Transpose":
            order: Sequence[int] | None = node.attributes.get_ints("perm")
            if order is not None and max(axes) < len(order):
                pending.append((node.inputs[0], (order[axes[0]], order[axes[1]])))
        elif node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
            pending.append((node.inputs[1], axes))  # an embedding: the axes are those of the indices
        elif node.op_type in _IN_PLACE:
            pending.append((node.inputs[0], axes))
        elif find("", node.op_type).elementwise:
            varying = [operand for operand in node.inputs if operand is not None and constant(operand) is None]
            ranks = {_rank(operand) for operand in varying}
            if len(varying) == 1 or (len(ranks) == 1 and None not in ranks):
                pending.extend((operand, axes) for operand in varying)


def _rank(value: onnx_ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)
