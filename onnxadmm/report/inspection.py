"""What ``inspect`` shows: the groups of a model, what they weigh, and what locks the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group as Lines
from rich.console import RenderableType

from onnxadmm.graph.stated import in_words
from onnxadmm.report.escaping import shown
from onnxadmm.report.fitting import Fitting, Rows
from onnxadmm.report.words import large, percent, plural
from onnxadmm.units.columns import about_columns
from onnxadmm.units.cost import Cost
from onnxadmm.units.feeding import fed_groups
from onnxadmm.units.units import Group, Units

_MOST_LAYERS = 3


@dataclass(frozen=True)
class InspectedGroup:
    """One group.

    Attributes:
        name: of the group.
        units: how many units it has.
        blocks: blocks that must keep equally many; 1 when the units are free.
        layers: nodes that own the weights it occupies.
        parameters: share of the model's parameters that go when the whole group goes, others staying.
        macs: likewise.
        locked: why it may not shrink, None when it may.
        feeds: names of the groups that are written by the layers that read this one.
        tied: whether several layers that multiply write its units, as into one residual stream.
    """

    name: str
    units: int
    blocks: int
    layers: tuple[str, ...]
    parameters: float | None
    macs: float | None
    locked: str | None
    feeds: tuple[str, ...] = ()
    tied: bool = False


@dataclass(frozen=True)
class Inspection:
    """A model in groups.

    Attributes:
        model: its name.
        parameters, macs: of the whole model, for one sample.
        groups: those that may shrink, in the order of the graph, then the locked ones.
        inexact: operators that mix along an axis which may shrink; empty unless inexact pruning was asked for.
        input_shapes: of one sample, where the file leaves sizes free: what MACs were counted at.
        columns: a sentence about columns that are units of their own; empty unless they were asked for.
    """

    model: str
    parameters: int
    macs: int
    groups: tuple[InspectedGroup, ...]
    inexact: tuple[str, ...] = ()
    input_shapes: str = ""
    columns: str = ""


def inspect_units(name: str, units: Units, *, features: bool = False) -> Inspection:
    """Weigh the groups of a model.

    Args:
        features: whether columns behind a flattening were to be units of their own.
    """
    macs, parameters = Cost(units, "macs"), Cost(units, "params")
    whole = parameters.dense(), macs.dense()
    feeds, computing = fed_groups(units), {term.name for term in units.mac_terms}
    groups: list[InspectedGroup] = []
    for group in units.groups:
        groups.append(
            InspectedGroup(
                name=group.name,
                units=group.count,
                blocks=group.block_count,
                layers=group.layers,
                parameters=_share(parameters, whole[0], group),
                macs=_share(macs, whole[1], group),
                locked=None,
                feeds=feeds[group.name],
                tied=len(computing.intersection(group.layers)) > 1,
            )
        )
    groups += [
        InspectedGroup(lock.name, lock.count, 1, lock.layers, None, None, lock.reason, feeds[lock.name])
        for lock in units.locked
    ]
    return Inspection(
        name,
        round(whole[0]),
        round(whole[1]),
        tuple(groups),
        units.inexact,
        in_words(units.shapes.sizes),
        about_columns(units) if features else "",
    )


def _share(cost: Cost, whole: float, group: Group) -> float:
    return cost.saved(group.start, group.count) / whole if whole else 0.0


def inspection_view(inspection: Inspection) -> RenderableType:
    """Return tables for the console."""
    free = [group for group in inspection.groups if group.locked is None]
    locked = [group for group in inspection.groups if group.locked is not None]
    head = shown(
        f"{inspection.model}: {large(inspection.parameters)} parameters, {large(inspection.macs)} MACs per sample"
        f"{' of ' * bool(inspection.input_shapes)}{inspection.input_shapes}, "
        f"{plural(len(free), 'group')} that may shrink, {len(locked)} locked"
    )
    parts: list[RenderableType] = [head]
    if free:
        parts.append(_free_table(free))
    if locked:
        parts.append(_locked_table(locked))
    if inspection.inexact:
        parts.append(shown(f"Inexact, since they mix what may go: {', '.join(inspection.inexact)}"))
    if inspection.columns:
        parts.append(shown(inspection.columns))
    return Lines(*parts)


def _free_table(groups: Sequence[InspectedGroup]) -> RenderableType:
    rows = []
    for group in groups:
        count = f"{group.units}" if group.blocks == 1 else f"{group.units} in {group.blocks} equal blocks"
        assert group.parameters is not None  # free groups are weighed
        assert group.macs is not None
        rows.append((group.name, count, percent(group.parameters), percent(group.macs), _names(group.layers)))
    return Fitting(Rows(("group", "units", "params", "MACs", "layers"), rows, names=(0, 4)))


def _locked_table(groups: Sequence[InspectedGroup]) -> RenderableType:
    rows = [(group.name, str(group.units), group.locked or "") for group in groups]
    return Fitting(Rows(("locked", "units", "why"), rows, names=(0, 2)))


def _names(layers: Sequence[str]) -> str:
    more = len(layers) - _MOST_LAYERS
    return ", ".join(layers[:_MOST_LAYERS]) + (f" and {more} more" if more > 0 else "")
