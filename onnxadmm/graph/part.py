"""The part of a graph that some of its results need."""

from collections.abc import Collection

from onnxadmm.graph.model import Model, clone


def up_to(model: Model, names: Collection[str]) -> Model:
    """Return a copy that computes the named tensors of the main graph, and holds no node or weight they do not need."""
    copy = clone(model)
    graph = copy.ir.graph
    graph.outputs[:] = [value for node in graph for value in node.outputs if value.name in names]
    wanted = set(graph.outputs)
    for node in reversed(graph):
        if not any(value.uses() or value in wanted for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in wanted:
            del graph.initializers[name]
    return copy
