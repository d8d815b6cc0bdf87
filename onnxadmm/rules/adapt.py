"""Nodes of a graph that shrinks, adapted one by one."""

from collections.abc import Callable

import onnx_ir

from onnxadmm.graph.boundary import name_node
from onnxadmm.graph.constants import value_names
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import Shapes
from onnxadmm.operators.table import find
from onnxadmm.rules.edit import Edit, Kept, Made


def is_used(node: onnx_ir.Node) -> bool:
    """Tell whether any result of a node is read or is an output of the graph."""
    return any(value.uses() or value.is_graph_output() for value in node.outputs)


def adapt_nodes(
    model: Model, shapes: Shapes, kept: Kept, *, failed: Callable[[onnx_ir.Node, Exception], None] | None = None
) -> None:
    """Let every rule rewrite the nodes that shrink, in place, and remove nodes that are no longer read.

    Args:
        model: with functions written out.
        shapes: before removal.
        kept: positions of each axis that stay, by the name of a value; None where all do.
        failed: told of a node whose rule cannot rewrite it, which is then left as it is; else the error is raised.
    """
    graph = model.ir.graph
    used = {id(node) for node in graph if is_used(node)}
    taken = value_names(model)
    made: Made = {}
    following: set[onnx_ir.Node] = set()
    # Users first: a size that its users now spell out needs no keeping where it was computed.
    for node in reversed(list(graph)):
        if id(node) in used and not is_used(node):
            graph.remove(node, safe=True)
            continue
        rewrite = find(node.domain, node.op_type).rewrite
        edit = Edit(model, node, shapes, kept, taken, made, following)
        if rewrite is None or not edit.is_affected:
            continue
        try:
            rewrite(edit)
        except Exception as error:  # of whatever kind: rules may be the user's own
            if failed is None:
                name_node(error, node)
                raise
            failed(node, error)
