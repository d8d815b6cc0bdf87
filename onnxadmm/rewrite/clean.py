"""Dropping what a rewrite left without use."""

from collections.abc import Container, Mapping

from onnxadmm.graph.model import Model
from onnxadmm.rules.edit import Positions
from onnxadmm.units.columns import take_out
from onnxadmm.units.units import Units


def remove_dead(model: Model, used_before: Container[str | None]) -> None:
    """Remove initializers that were used before and no longer are; what the user left unused stays."""
    graph = model.ir.graph
    for name, value in list(graph.initializers.items()):
        if name in used_before and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)


def remove_whole_picks(model: Model, units: Units, kept: Mapping[str, tuple[Positions | None, ...]]) -> None:
    """Take the Gathers of ``units.columns`` that pick all there is out of a model that has shrunk.

    Args:
        units: of the model before.
        kept: positions of each axis that stay, by the name of a value; no entry, and None, where all do.
    """
    for node in [node for node in model.ir.graph if node.outputs and node.outputs[0].name in units.columns]:
        data, picked = node.inputs[0], node.outputs[0]
        whole = data is not None and _lengths(units, kept, data.name) == _lengths(units, kept, picked.name)
        if whole and not picked.is_graph_output():
            take_out(model, node)


def _lengths(
    units: Units, kept: Mapping[str, tuple[Positions | None, ...]], name: str | None
) -> tuple[int, ...] | None:
    shape, axes = units.shapes.shape(name or ""), kept.get(name or "")
    if shape is None or axes is None:
        return shape
    return tuple(size if axis is None else axis.shape[-1] for size, axis in zip(shape, axes, strict=True))
