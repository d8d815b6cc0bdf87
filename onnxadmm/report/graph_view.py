"""The groups of a model as a page shows them: a list in the order of the graph, arcs beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from onnxadmm.report.inspection import Inspection
from onnxadmm.report.layers import LayerLine
from onnxadmm.report.report import GroupLine
from onnxadmm.report.words import percent, plural

#: As the style sheet has them: the height of a group, and the width of the arcs, in units of the drawing.
_HEIGHT: Final = 64
_WIDTH: Final = 72
_MOST_NAMED: Final = 3


@dataclass(frozen=True)
class GroupBox:
    """One group in the list.

    Attributes:
        name: of the group.
        kind: ``"free"`` where one layer that multiplies writes the units, ``"tied"`` where several do, ``"locked"``
            where it stays.
        why: what is said of it in a line.
        count: its units in words.
        share: length of its bar, from 0 to 1.
        feeds: names of the groups that the layers which read it write.
    """

    name: str
    kind: Literal["free", "tied", "locked"]
    why: str
    count: str
    share: float
    feeds: tuple[str, ...]


def boxes_of_report(groups: Sequence[GroupLine], layers: Sequence[LayerLine]) -> list[GroupBox]:
    """The groups of a report; their bars are the units that stay."""
    computing = {line.name for line in layers if line.macs_before}
    return [
        GroupBox(
            name=group.name,
            kind=_kind(group.locked, tied=len(computing.intersection(group.layers)) > 1),
            why=f"locked: {group.locked}" if group.locked is not None else _written_by(group.layers),
            count=f"{group.units_before:,}"
            if group.locked is not None
            else f"{group.units_before:,} \N{RIGHTWARDS ARROW} {group.units_after:,}",
            share=group.units_after / max(1, group.units_before),
            feeds=group.feeds,
        )
        for group in groups
    ]


def boxes_of_inspection(inspection: Inspection) -> list[GroupBox]:
    """The groups of a model as it is; their bars are the MACs that go with the whole group, relative to the most."""
    most = max((group.macs or 0.0 for group in inspection.groups), default=0.0)
    boxes = []
    for group in inspection.groups:
        blocks = "" if group.blocks == 1 else f" in {group.blocks} equal blocks"
        cost = f"{percent(group.parameters or 0)} of the parameters, {percent(group.macs or 0)} of the MACs"
        boxes.append(
            GroupBox(
                name=group.name,
                kind=_kind(group.locked, tied=group.tied),
                why=f"locked: {group.locked}" if group.locked is not None else f"{cost}; {_written_by(group.layers)}",
                count=f"{plural(group.units, 'unit')}{blocks}",
                share=(group.macs or 0.0) / most if most else 0.0,
                feeds=group.feeds,
            )
        )
    return boxes


def anchors(boxes: Sequence[GroupBox]) -> dict[str, str]:
    """By name of a group what a link to it leads to: numbers, since a name may hold anything."""
    return {box.name: f"group-{number}" for number, box in enumerate(boxes)}


def for_template(boxes: Sequence[GroupBox]) -> list[dict[str, Any]]:
    """The boxes as the template reads them."""
    tags = {"tied": "tied", "locked": "locked", "free": ""}
    return [
        {
            "name": box.name,
            "kind": box.kind,
            "why": box.why,
            "count": box.count,
            "share": f"{box.share:.4f}",
            "tag": tags[box.kind],
            "anchor": f"group-{number}",
        }
        for number, box in enumerate(boxes)
    ]


def arcs(boxes: Sequence[GroupBox]) -> list[str]:
    """The paths of the arcs, as SVG has them: from a group to each that it feeds, farther out the longer they are."""
    places: Mapping[str, int] = {box.name: number for number, box in enumerate(boxes)}
    paths = []
    for source, box in enumerate(boxes):
        for target in (places[name] for name in box.feeds if name in places):
            side = 9 if target >= source else -9
            start, end = _HEIGHT * (source + 0.5) + side, _HEIGHT * (target + 0.5) - side
            if source == target:
                start, end = end, start
            reach = max(4.0, _WIDTH - 22 - abs(target - source) ** 0.5 * 14)
            paths.append(
                f"M{_WIDTH - 2} {start:.0f}C{reach:.0f} {start:.0f} {reach:.0f} {end:.0f} {_WIDTH - 2} {end:.0f}"
            )
    return paths


def _kind(locked: str | None, *, tied: bool) -> Literal["free", "tied", "locked"]:
    return "locked" if locked is not None else "tied" if tied else "free"


def _written_by(layers: Sequence[str]) -> str:
    more = len(layers) - _MOST_NAMED
    return f"written by {', '.join(layers[:_MOST_NAMED])}" + (f" and {more} more" if more > 0 else "")
