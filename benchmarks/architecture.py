"""The picture of the rooms and of who imports whom, made from the import statements of the package.

Run from the root of the repository: ``python -m benchmarks.architecture > docs/architecture.svg``.

Every room stands one floor or more above the rooms that it imports. An arrow that follows from others is left out: who
imports ``plan``, which imports ``units``, may import ``units`` as well. Places on a floor are chosen so that arrows are
short and cross little, by exchanging neighbours for as long as that helps; nothing is drawn by lot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from tests.test_imports import room_of, rooms_imported, trees

#: Imported nearly everywhere, and importing next to nothing: one line at the bottom instead of arrows.
FOUNDATION = ("errors", "files", "progress", "child_process", "plain_text")
#: The way of a model through the rooms, as the page numbers it.
STEPS: Mapping[str, int] = {
    "graph": 1,
    "rules": 2,
    "units": 3,
    "plan": 4,
    "train.data": 5,
    "train.artifacts": 6,
    "admm": 7,
    "rewrite": 8,
    "train.retrain": 9,
    "bench": 10,
    "report": 11,
    "output": 12,
}
_NAMES = {"__init__": "onnxadmm, in Python", "cli": "cli, the command line"}
_TRAIN = "train."

_WIDTH, _SLOTS, _TRAIN_SLOTS = 1000, 7, 3
_PITCH, _LEFT, _TOP = 138, 20, 30
_FLOOR, _BOX_WIDTH, _BOX_HEIGHT = 62, 110, 28
_CROSSING = 60.0

Edges = dict[str, set[str]]


@dataclass
class Layout:
    """Where everything stands.

    Attributes:
        floors: floor of each room, from 0 at the bottom.
        slots: column of each room.
        edges: rooms that each one imports, as drawn.
    """

    floors: dict[str, int]
    edges: Edges
    slots: dict[str, int] = field(default_factory=dict)

    @property
    def height(self) -> int:
        return max(self.floors.values())

    def x(self, room: str) -> float:
        return _slot_x(self.slots[room])

    def y(self, floor: int) -> float:
        """The upper edge of a floor's boxes."""
        return _TOP + (self.height - floor) * _FLOOR

    def allowed(self, room: str) -> range:
        """Columns a room may stand in: training's on the right, the others beside it or above."""
        if room.startswith(_TRAIN):
            return range(_SLOTS - _TRAIN_SLOTS, _SLOTS)
        top = max(floor for name, floor in self.floors.items() if name.startswith(_TRAIN))
        return range(_SLOTS if self.floors[room] > top else _SLOTS - _TRAIN_SLOTS)

    def on(self, floor: int) -> list[str]:
        return sorted(room for room, own in self.floors.items() if own == floor)

    def ways(self) -> list[list[tuple[float, int]]]:
        """For every arrow the column, in pixels, at which it leaves, passes and meets floors, from above."""
        taken: dict[tuple[int, float], int] = {}
        result = []
        for room in sorted(self.edges):
            for other in sorted(self.edges[room]):
                start, stop = self.floors[room], self.floors[other]
                way = [(self.x(room), start)]
                for floor in range(start - 1, stop, -1):
                    share = (start - floor) / (start - stop)
                    aim = way[-1][0] + (self.x(other) - way[-1][0]) / max(1, floor - stop + 1)
                    aim = (aim + self.x(room) + share * (self.x(other) - self.x(room))) / 2
                    gap = min(self._gaps(floor), key=lambda place: (abs(place - aim), place))
                    count = taken.get((floor, gap), 0)
                    taken[floor, gap] = count + 1
                    way.append((gap + (0, 7, -7, 14, -14)[count % 5], floor))
                way.append((self.x(other), stop))
                result.append(way)
        return result

    def _gaps(self, floor: int) -> list[float]:
        full = {self.slots[room] for room in self.on(floor)}
        between = [_slot_x(slot) - _PITCH / 2 for slot in range(1, _SLOTS)]
        return between + [_slot_x(slot) for slot in range(_SLOTS) if slot not in full]

    def cost(self) -> float:
        """How long the arrows are, and how often they cross."""
        bands: dict[int, list[tuple[float, float]]] = {}
        for way in self.ways():
            for (above, floor), (below, _) in pairwise(way):
                bands.setdefault(floor, []).append((above, below))
        length = sum(abs(above - below) for band in bands.values() for above, below in band)
        crossings = sum(
            (first[0] - second[0]) * (first[1] - second[1]) < 0
            for band in bands.values()
            for first, second in combinations(band, 2)
        )
        return length + _CROSSING * crossings


def _slot_x(slot: int) -> float:
    return _LEFT + _PITCH * (slot + 0.5)


def imports() -> Edges:
    """Return for every room the rooms that its files import; the foundation and what only starts ``cli`` left out."""
    found: Edges = {}
    for path, tree in trees().items():
        found.setdefault(room_of(path), set()).update(rooms_imported(tree) - {room_of(path)})
    left_out = {*FOUNDATION, f"{_TRAIN}__init__", "__main__"}
    return {room: others - left_out for room, others in found.items() if room not in left_out}


def without_detours(edges: Edges) -> Edges:
    """Return the edges that do not follow from others."""
    below: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        if room not in below:
            below[room] = set().union(*({other} | reached(other) for other in edges[room]))
        return below[room]

    return {
        room: {other for other in others if not any(other in reached(step) for step in others)}
        for room, others in edges.items()
    }


def floors_of(edges: Edges) -> dict[str, int]:
    """Return the floor of every room: above what it imports, and near whom it serves."""
    floors: dict[str, int] = {}

    def lowest(room: str) -> int:
        if room not in floors:
            floors[room] = 1 + max((lowest(other) for other in edges[room]), default=-1)
        return floors[room]

    for room in edges:
        lowest(room)
    users = {room: [user for user, others in edges.items() if room in others] for room in edges}
    for room in sorted(edges, key=lambda name: (-floors[name], name)):
        # Up, where that shortens more arrows than it makes longer.
        if len(users[room]) > len(edges[room]):
            highest = min(floors[user] for user in users[room]) - 1
            floors[room] = next(floor for floor in range(highest, -1, -1) if _has_place(floors, room, floor))
    return floors


def _has_place(floors: Mapping[str, int], room: str, floor: int) -> bool:
    inner = room.startswith(_TRAIN)
    there = [name for name, own in floors.items() if own == floor and name != room and name.startswith(_TRAIN) == inner]
    return len(there) < (_TRAIN_SLOTS if inner else _SLOTS - _TRAIN_SLOTS)


def arrange(edges: Edges) -> Layout:
    """Return places for all rooms."""
    layout = Layout(floors_of(edges), edges)
    for floor in range(layout.height + 1):
        for room in layout.on(floor):
            full = {layout.slots.get(other) for other in layout.on(floor)}
            layout.slots[room] = next(slot for slot in layout.allowed(room) if slot not in full)
    best = layout.cost()
    while True:
        before = best
        for room in sorted(layout.slots):
            for slot in layout.allowed(room):
                kept = dict(layout.slots)
                there = layout.on(layout.floors[room])
                other = next((name for name in there if layout.slots[name] == slot), None)
                if other == room or (other is not None and kept[room] not in layout.allowed(other)):
                    continue
                if other is not None:
                    layout.slots[other] = kept[room]
                layout.slots[room] = slot
                if (cost := layout.cost()) < best:
                    best = cost
                else:
                    layout.slots = kept
        if best == before:
            return layout


_STYLE = """
    .page { fill: #ffffff } .frame { fill: #eef4fb; stroke: #9db8d6 } .room { fill: #f6f3ea; stroke: #8a8266 }
    .inner { fill: #ffffff; stroke: #6f93bb } .arrow { fill: none; stroke: #76808c } .head { fill: #76808c }
    text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1d2329; text-anchor: middle }
    .note { font-size: 12px; fill: #4d5761; text-anchor: start }
    .step { fill: #1f5f99 } .number { font-size: 11px; font-weight: bold; fill: #ffffff }
    @media (prefers-color-scheme: dark) {
      .page { fill: #16191d } .frame { fill: #1b2530; stroke: #3e5877 } .room { fill: #2b2920; stroke: #8a8266 }
      .inner { fill: #1f2329; stroke: #587fa8 } .arrow { stroke: #8b949e } .head { fill: #8b949e }
      text { fill: #e4e8ec } .note { fill: #a9b2bb } .step { fill: #69a9e0 } .number { fill: #10151a }
    }
"""


def draw(layout: Layout) -> str:
    """Return the picture as SVG."""
    bottom = layout.y(0) + _BOX_HEIGHT
    height = int(bottom + 84)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" aria-label="The rooms of the package and who imports whom">',
        f"<style>{_STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0.8 L8 4 L0 7.2 z"/></marker>',
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="8"/>',
        *_frame(layout),
        *(_arrow(layout, way) for way in layout.ways()),
        *(part for room in sorted(layout.slots) for part in _room(layout, room)),
        *_foundation(bottom + 22),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _frame(layout: Layout) -> Iterable[str]:
    inside = [floor for room, floor in layout.floors.items() if room.startswith(_TRAIN)]
    left = _slot_x(_SLOTS - _TRAIN_SLOTS) - _PITCH / 2 + 4
    top, bottom = layout.y(max(inside)) - 26, layout.y(min(inside)) + _BOX_HEIGHT + 10
    yield (
        f'<rect class="frame" x="{left:g}" y="{top:g}" width="{_PITCH * _TRAIN_SLOTS - 4:g}" '
        f'height="{bottom - top:g}" rx="8"/>'
    )
    yield f'<text class="note" x="{left + 12:g}" y="{bottom - 12:g}">train/</text>'


def _arrow(layout: Layout, way: list[tuple[float, int]]) -> str:
    path = f"M{way[0][0]:g} {layout.y(way[0][1]) + _BOX_HEIGHT:g}"
    for (above, high), (below, low) in pairwise(way):
        start, stop = layout.y(high) + _BOX_HEIGHT, layout.y(low)
        middle = (start + stop) / 2
        path += f" C{above:g} {middle:g} {below:g} {middle:g} {below:g} {stop:g}"
        if low != way[-1][1]:
            path += f" L{below:g} {stop + _BOX_HEIGHT:g}"
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'


def _room(layout: Layout, room: str) -> Iterable[str]:
    name = _NAMES.get(room, room.removeprefix(_TRAIN))
    x, y = layout.x(room), layout.y(layout.floors[room])
    width = max(_BOX_WIDTH, 7.4 * len(name) + 14)
    kind = "inner" if room.startswith(_TRAIN) else "room"
    box = f'x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="{_BOX_HEIGHT}" rx="5"'
    yield f'<rect class="{kind}" {box}/><text x="{x:g}" y="{y + 18.5:g}">{name}</text>'
    if room in STEPS:
        yield f'<circle class="step" cx="{x - width / 2:g}" cy="{y:g}" r="9"/>'
        yield f'<text class="number" x="{x - width / 2:g}" y="{y + 4:g}">{STEPS[room]}</text>'


def _foundation(y: float) -> Iterable[str]:
    box = f'x="{_LEFT}" y="{y:g}" width="{_WIDTH - 2 * _LEFT}" height="{_BOX_HEIGHT}" rx="5"'
    yield f'<rect class="room" {box}/><text x="{_WIDTH / 2:g}" y="{y + 18.5:g}">{" &#183; ".join(FOUNDATION)}</text>'
    yield (
        f'<text class="note" x="{_LEFT}" y="{y + 48:g}">An arrow: imports. Those to the lowest floor, and those that '
        "follow from others, are left out. Numbers: the way of a model, as below.</text>"
    )


def picture() -> str:
    """Return the committed picture."""
    return draw(arrange(without_detours(imports())))


if __name__ == "__main__":
    print(picture(), end="")
