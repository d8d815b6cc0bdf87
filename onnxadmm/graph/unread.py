"""Dropping what a change to the graph left without readers."""

from collections.abc import Iterable

import onnx_ir

from onnxadmm.graph.model import Model


def drop_unread(model: Model, values: Iterable[onnx_ir.Value | None]) -> None:
    """Remove values of the main graph that nothing reads any more, and what they alone were computed from."""
    graph = model.ir.graph
    pending = [value for value in values if value is not None]
    while pending:
        value = pending.pop()
        if value.uses() or value.is_graph_output():
            continue
        if value.is_initializer() and not value.is_graph_input() and graph.initializers.get(value.name or "") is value:
            graph.initializers.pop(value.name or "")
        node = value.producer()
        if node is None or node.graph is not graph:
            continue
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            continue
        before = list(node.inputs)
        graph.remove(node, safe=True)
        pending.extend(operand for operand in before if operand is not None)


def take_apart(graph: onnx_ir.Graph) -> list[onnx_ir.Value]:
    """Remove all nodes of a branch that is given up, so that it reads nothing; return what it read from outside."""
    graph.outputs.clear()
    read: dict[str, onnx_ir.Value] = {}
    for node in reversed(list(graph)):
        for attribute in node.attributes.values():
            if attribute.type == onnx_ir.AttributeType.GRAPH:
                read |= {value.name or "": value for value in take_apart(attribute.as_graph())}
        read |= {value.name or "": value for value in node.inputs if value is not None}
        graph.remove(node, safe=True)
    return [value for value in read.values() if value.graph is not graph]
