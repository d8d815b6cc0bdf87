"""Dropping what a rewrite left without use."""

from collections.abc import Container

from onnxadmm.graph.model import Model


def remove_dead(model: Model, used_before: Container[str | None]) -> None:
    """Remove initializers that were used before and no longer are; what the user left unused stays."""
    graph = model.ir.graph
    for name, value in list(graph.initializers.items()):
        if name in used_before and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)
