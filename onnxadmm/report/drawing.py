"""A picture of the groups: which layers each one ties together, and which group feeds which."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxadmm.report.escaping import for_markup, for_terminal
from onnxadmm.report.inspection import Inspection
from onnxadmm.report.words import percent, plural

_BOX_WIDTH = 560
_LEFT = 190  # room for the arcs
_LINE = 16
_GAP = 18
_MOST_LAYERS = 12
_NAME_LENGTH = 62
_STYLE = (
    "text{font:12px sans-serif;fill:#1b1f24}.name{font-weight:600}.quiet{fill:#57606a}"
    ".free{fill:#ddf4ff;stroke:#0969da}.tied{fill:#fff1e5;stroke:#bc4c00}.locked{fill:#eaeef2;stroke:#8c959f}"
    ".arc{fill:none;stroke:#57606a;stroke-opacity:.55;stroke-width:1.2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6eaef}.quiet{fill:#9aa5b1}.arc{stroke:#9aa5b1}"
    ".free{fill:#17314f;stroke:#5aa9ff}.tied{fill:#35251a;stroke:#f0a35e}.locked{fill:#1b222b;stroke:#59636e}}"
)


@dataclass(frozen=True)
class _Box:
    """One group in the picture, from ``top`` to ``bottom``."""

    title: str
    lines: tuple[str, ...]
    kind: str
    top: int

    @property
    def bottom(self) -> int:
        return self.top + _LINE * (1 + len(self.lines)) + 10

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def draw_groups(inspection: Inspection) -> str:
    """Return the picture as SVG.

    One box per group in the order of the graph: blue where one layer writes the units, orange where several are tied
    (a residual stream), grey where the group is locked. An arc leads from a group to the group that its readers write.
    """
    boxes = _boxes(inspection)
    arcs = _arcs(inspection)
    locked = sum(group.locked is not None for group in inspection.groups)
    height = (boxes[-1].bottom if boxes else 60) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _BOX_WIDTH + 20}" height="{height}" '
        f'viewBox="0 0 {_LEFT + _BOX_WIDTH + 20} {height}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>',
        f'<text x="{_LEFT}" y="18" class="name">{for_markup(inspection.model)}: '
        f"{len(boxes) - locked} groups may shrink, {locked} are locked</text>",
    ]
    parts += [_arc(boxes[source], boxes[target]) for source, target in arcs]
    for box in boxes:
        parts.append(_rectangle(box))
    parts.append("</svg>\n")
    return "\n".join(parts)


def _boxes(inspection: Inspection) -> list[_Box]:
    boxes: list[_Box] = []
    top = 32
    for group in inspection.groups:
        lines = list(_layer_lines(group.layers))
        if group.locked is not None:
            lines.insert(0, f"locked: {group.locked}")
        elif group.parameters is not None and group.macs is not None:
            blocks = "" if group.blocks == 1 else f" in {group.blocks} equal blocks"
            weight = f"{percent(group.parameters)} of the parameters, {percent(group.macs)} of the MACs"
            lines.insert(0, f"{plural(group.units, 'unit')}{blocks}; {weight}")
        kind = "locked" if group.locked is not None else "tied" if group.tied else "free"
        boxes.append(_Box(group.name, tuple(lines), kind, top))
        top = boxes[-1].bottom + _GAP
    return boxes


def _layer_lines(layers: Sequence[str]) -> list[str]:
    more = len(layers) - _MOST_LAYERS
    return [f"· {name}" for name in layers[:_MOST_LAYERS]] + ([f"· and {more} more"] if more > 0 else [])


def _arcs(inspection: Inspection) -> list[tuple[int, int]]:
    """Return (group read, group written) for every weight that reads one group and writes another."""
    place = {group.name: index for index, group in enumerate(inspection.groups)}
    return [(place[group.name], place[name]) for group in inspection.groups for name in group.feeds if name in place]


def _arc(source: _Box, target: _Box) -> str:
    start, end = source.middle - 4, target.middle + 4
    reach = _LEFT - min(_LEFT - 12, 24 + abs(end - start) / 5)
    return (
        f'<path class="arc" marker-end="url(#tip)" '
        f'd="M{_LEFT} {start:.0f} C{reach:.0f} {start:.0f} {reach:.0f} {end:.0f} {_LEFT} {end:.0f}"/>'
    )


def _rectangle(box: _Box) -> str:
    lines = [
        f'<text x="{_LEFT + 10}" y="{box.top + _LINE * (number + 2)}" class="quiet">{for_markup(_short(line))}</text>'
        for number, line in enumerate(box.lines)
    ]
    return "\n".join(
        [
            f'<rect class="{box.kind}" x="{_LEFT}" y="{box.top}" width="{_BOX_WIDTH}" '
            f'height="{box.bottom - box.top}" rx="4"/>',
            f'<text x="{_LEFT + 10}" y="{box.top + _LINE}" class="name">{for_markup(_short(box.title))}</text>',
            *lines,
        ]
    )


def _short(text: str) -> str:
    text = for_terminal(text)
    limit = _NAME_LENGTH + 20
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
