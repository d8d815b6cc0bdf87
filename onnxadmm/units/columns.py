"""Columns behind a flattening as units of their own: a Gather behind it picks those that stay."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir

from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.constants import free_name, new_initializer, remove_initializer, value_names
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, clone
from onnxadmm.operators.table import find
from onnxadmm.rules.analyse import analyse
from onnxadmm.rules.facts import Facts
from onnxadmm.rules.flattening import flattens
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.units import Units, find_units

_PRODUCTS: Final = ("Gemm", "FusedGemm", "MatMul")
#: What passes columns on, beside what works position by position; whether they may go is for the rules to say.
_PASSING: Final = ("BatchNormalization", "QuantizeLinear", "DequantizeLinear", "Dropout")
#: What ``about_columns`` says where there is nothing of the kind.
_NOTHING: Final = (
    "--features changes nothing: no product reads columns behind a Flatten or a Reshape that merges channels with "
    "places, or all of them must stay, or something else reads these channels too."
)


def with_columns(model: Model, *, features: bool = True, inexact: bool = False) -> Model:
    """Return a model with a Gather of all columns behind every flattening whose columns products read.

    There they can be taken out one by one: ``find_units`` with ``features`` has a unit for each. A flattening is left
    alone whose columns have to stay, or whose channels may go and could not follow their columns, since something else
    reads them. One that has such a Gather needs no other.

    Args:
        model: any model; it is not changed.
        features: whether that is wanted.
        inexact: as for ``find_units``.

    Returns:
        The model as it was given where it is not wanted, or there is no such flattening.

    Raises:
        ModelFileError: something is wrong with the model that no check has foreseen.
    """
    if not features:
        return model
    with analysing(model, "the search for flattenings"):
        facts = analyse(inline(model), inexact=inexact)
        result = clone(model)
        picks = list(_picks(result, facts))
        before = find_units(model, inexact=inexact) if picks else None
        while before is not None and picks:
            units = find_units(result, inexact=inexact, features=True)
            useless = [pick for pick in picks if not _may_go(pick, units) or _keeps_channels(pick, units, before)]
            if not useless:
                return result
            for pick in useless:
                picks.remove(pick)
                take_out(result, pick)
        return model


def about_columns(units: Units) -> str:
    """Return a sentence about the columns that may go by themselves, where that was asked for."""
    found = [term.axes[0] for term in units.index_terms]
    count = np.unique(np.concatenate([axis[axis >= 0] for axis in found])).size if found else 0
    if not count:
        return _NOTHING
    return f"{count:,} columns behind a flattening are units of their own; a Gather picks those that stay."


def take_out(model: Model, pick: onnx_ir.Node) -> None:
    """Take a Gather out of a model, in place: what reads it reads all that it picks from."""
    data, indices = pick.inputs
    for use in tuple(pick.outputs[0].uses()):
        use.node.replace_input_with(use.idx, data)
    model.ir.graph.remove(pick, safe=True)
    if indices is None or indices.uses():
        return
    written = indices.producer()
    if written is not None:
        model.ir.graph.remove(written, safe=True)
    else:
        remove_initializer(model, indices)


def _picks(model: Model, facts: Facts) -> Iterator[onnx_ir.Node]:
    """Put in the Gathers, and yield each."""
    names = value_names(model)
    nodes = {node.name or "" for node in model.ir.graph}
    for node in list(model.ir.graph):
        flat = node.outputs[0] if node.outputs else None
        shape = None if flat is None else facts.shapes.shape(flat.name or "")
        if flat is None or not shape or not flattens(facts, node, len(shape) - 1):
            continue
        known: dict[tuple[str, int], bool] = {}
        uses = [use for use in flat.uses() if _is_read(facts, use.node, use.idx, len(shape), known)]
        if not uses:
            continue
        indices = new_initializer(model, f"{flat.name}_columns", np.arange(shape[-1], dtype=np.int64), taken=names)
        pick = onnx_ir.Node(
            "",
            "Gather",
            inputs=[flat, indices],
            attributes=[onnx_ir.AttrInt64("axis", len(shape) - 1)],
            name=free_name(f"{node.name or flat.name}_columns", nodes),
        )
        picked = pick.outputs[0]
        picked.name, picked.shape, picked.type = free_name(f"{flat.name}_picked", names), flat.shape, flat.type
        node.append(pick)
        for use in uses:
            use.node.replace_input_with(use.idx, picked)
        yield pick


def _is_read(facts: Facts, node: onnx_ir.Node, place: int, rank: int, known: dict[tuple[str, int], bool]) -> bool:
    """Tell whether products with weights, and nothing else, read the last axis of an operand of a node.

    Args:
        place: of the operand.
        rank: of the operand.
        known: what was found of results of the nodes that pass it on, by name, which may join again.
    """
    key = (node.outputs[0].name or "", place)
    if key not in known:
        known[key] = _reads(facts, node, place, rank, known)
    return known[key]


def _reads(facts: Facts, node: onnx_ir.Node, place: int, rank: int, known: dict[tuple[str, int], bool]) -> bool:
    operator, result = find(node.domain, node.op_type), node.outputs[0]
    if node.op_type in _PRODUCTS:
        weight = node.inputs[1]
        fixed = weight is not None and (weight.name in facts.constants or weight.name in facts.derived)
        return place == 0 and fixed and not node.attributes.get_int("transA", 0)
    shape = facts.shapes.shape(result.name or "")
    passes = operator.elementwise or (node.op_type in _PASSING and place == 0)
    if node.op_type == "Concat":
        passes = node.attributes.get_int("axis", 0) in (-1, rank - 1)
    if not passes or shape is None or len(shape) != rank or result.is_graph_output():
        return False
    uses = tuple(result.uses())
    return bool(uses) and all(_is_read(facts, use.node, use.idx, rank, known) for use in uses)


def _may_go(pick: onnx_ir.Node, units: Units) -> bool:
    axis = _last_axis(units, pick.outputs[0])
    return axis is not None and bool((axis >= 0).any())


def _keeps_channels(pick: onnx_ir.Node, units: Units, before: Units) -> bool:
    """Tell whether channels that could go before can neither go nor follow their columns."""
    free, follow = _last_axis(before, pick.inputs[0]), _last_axis(units, pick.inputs[0])
    return free is not None and bool((free[follow < 0] >= 0).any() if follow is not None else (free >= 0).any())


def _last_axis(units: Units, value: onnx_ir.Value | None) -> LabelArray | None:
    axes = units.axes.get("" if value is None else value.name or "", ())
    return axes[-1] if axes else None
