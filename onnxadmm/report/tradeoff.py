"""What several budgets led to, side by side: the points of a sweep, which of them pay, and which to pick."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from onnxadmm.errors import BudgetError, InputError, OptionError
from onnxadmm.plan.budget import COUNTED
from onnxadmm.plan.drop import parse_drop
from onnxadmm.report.codec import MismatchError, decode, dumps, encode
from onnxadmm.report.report import Report, Score
from onnxadmm.report.rows import score_in_words
from onnxadmm.report.words import amount, times
from onnxadmm.units.cost import CostKind

SCHEMA: Final = "onnxadmm.sweep/1"
NAME: Final = "sweep.json"
CSV_NAME: Final = "sweep.csv"


@dataclass(frozen=True)
class Faster:
    """How many times faster than the original a point is, at one batch size."""

    batch: int
    ratio: float


@dataclass(frozen=True)
class Point:
    """One budget and what it led to.

    Attributes:
        asked: the amount as it was given.
        folder: of its results, inside the sweep's.
        parameters, macs: of the result; the latter of one sample.
        file_bytes: of its file, external data included.
        speedups: how much faster it is, the smallest batch first; empty where nothing was timed.
        heldout, test: what it reaches; None without such data.
        lost: what it loses on held-out data: points of accuracy or another share, else percent of the original's.
        on_front: whether no other point costs no more and loses less, or costs less and loses no more.
        seconds: that its run took.
    """

    asked: str
    folder: str
    parameters: int
    macs: int
    file_bytes: int
    speedups: tuple[Faster, ...]
    heldout: Score | None
    test: Score | None
    lost: float
    on_front: bool
    seconds: float

    @property
    def faster(self) -> dict[int, float]:
        """``speedups`` by batch size."""
        return {each.batch: each.ratio for each in self.speedups}

    def cost(self, kind: CostKind) -> float:
        """Return what the point costs of a kind; a latency is relative to the original's, at the smallest batch."""
        if kind == "latency":
            return 1.0 / self.speedups[0].ratio if self.speedups else 1.0
        return float({"macs": self.macs, "params": self.parameters, "size": self.file_bytes}[kind])


@dataclass(frozen=True)
class TradeOff:
    """A sweep.

    Attributes:
        model: name of the original.
        kind: what the budgets count.
        original: the original as a point that loses nothing.
        points: one for each budget, the largest first.
        command: what makes it again.

    Examples:
        ```python
        found = oa.sweep("model.onnx", calibrate=images, bench=False, amounts={"params": [0.6, 0.3]}, out="sweep")
        print([(point.asked, point.parameters, point.lost) for point in found.points if point.on_front])
        print(found.pick(max_drop=20.0).folder)
        ```
    """

    schema: Literal["onnxadmm.sweep/1"]
    model: str
    kind: CostKind
    original: Point
    points: tuple[Point, ...]
    command: str

    def allowed(self, max_drop: float | str) -> float:
        """Return what a point may lose: points of a share, or percent of what the original has of anything else.

        Args:
            max_drop: as for ``pick``.

        Raises:
            OptionError: it is no such amount.
        """
        score = self.original.heldout
        return parse_drop(max_drop, nothing=True).allowed(score.value if score is not None and score.is_share else None)

    def pick(self, max_drop: float | str, *, by: CostKind | None = None) -> Point:
        """Return the point that costs least among those that lose at most so much on held-out data.

        Args:
            max_drop: points of accuracy, agreement or another share, else percent that the figure may get worse; or
                percent of what the original has of any of them, ``"2%"``.
            by: what costs; None: what the budgets count.

        Raises:
            BudgetError: every point loses more.
            OptionError: there is no such cost, or nothing was timed that could be compared.
        """
        kind = by or self.kind
        if kind not in COUNTED:
            raise OptionError("--by", expected=", ".join(COUNTED), found=repr(kind), way_out="choose one of them")
        if kind == "latency" and not all(point.speedups for point in self.points):
            raise OptionError(
                "--by latency", expected="points that were timed", found="none", way_out="choose by another cost"
            )
        most = self.allowed(max_drop)
        fitting = [point for point in self.points if point.lost <= most]
        if not fitting:
            nearest = min(self.points, key=lambda point: point.lost)
            raise BudgetError(
                f"--max-drop {parse_drop(max_drop, nothing=True)}",
                expected="a point of the sweep that loses no more",
                found=f"none: the best of {len(self.points)} loses {nearest.lost:.2f} (--{self.kind} {nearest.asked})",
                way_out="allow more, or sweep larger budgets",
            )
        return min(fitting, key=lambda point: point.cost(kind))


def trade_off(kind: CostKind, done: Sequence[tuple[str, str, Report]], *, command: str) -> TradeOff:
    """Put the reports of one model side by side.

    Args:
        kind: what their budgets count.
        done: for each, the amount as it was given, the folder and the report; the largest budget first.
    """
    reports = [report for _, _, report in done]
    points = [_point(asked, folder, report) for asked, folder, report in done]
    front = {
        place
        for place, point in enumerate(points)
        if not any(_beats(other, point, kind) for other in points if other is not point)
    }
    before = reports[0].before
    original = Point(
        asked="",
        folder="",
        parameters=before.parameters,
        macs=before.macs or 0,
        file_bytes=before.file_bytes,
        speedups=tuple(Faster(line.batch, 1.0) for line in reports[0].latency),
        heldout=before.heldout,
        test=before.test,
        lost=0.0,
        on_front=True,
        seconds=0.0,
    )
    return TradeOff(
        schema=SCHEMA,
        model=before.model.name,
        kind=kind,
        original=original,
        points=tuple(replace(point, on_front=place in front) for place, point in enumerate(points)),
        command=command,
    )


def _point(asked: str, folder: str, report: Report) -> Point:
    after = report.after
    return Point(
        asked=asked,
        folder=folder,
        parameters=after.parameters,
        macs=after.macs or 0,
        file_bytes=after.file_bytes,
        speedups=tuple(Faster(line.batch, line.speedup) for line in report.latency),
        heldout=after.heldout,
        test=after.test,
        lost=_lost(report.before.heldout, after.heldout),
        on_front=False,
        seconds=sum(stage.seconds for stage in report.stages),
    )


def _lost(before: Score | None, after: Score | None) -> float:
    if before is None or after is None:
        return 0.0
    if after.is_share:
        return 100.0 * (before.value - after.value)
    worse = before.value - after.value if after.more_is_better else after.value - before.value
    # A loss of nothing rises by any part of what it comes to.
    return 100.0 * worse / (abs(before.value) or abs(after.value) or 1.0)


def _beats(one: Point, other: Point, kind: CostKind) -> bool:
    cost, lost = (one.cost(kind), other.cost(kind)), (one.lost, other.lost)
    return cost[0] <= cost[1] and lost[0] <= lost[1] and (cost[0] < cost[1] or lost[0] < lost[1])


def rows_of(found: TradeOff) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return titles and rows of a table: the original, then every point."""
    batches = [each.batch for each in found.original.speedups]
    scores = [name for name in ("heldout", "test") if getattr(found.original, name) is not None]
    words = {"heldout": "held-out", "test": "test"}
    titles = (f"--{found.kind}", "parameters", "MACs", "bytes", *(words[name] for name in scores), "lost")
    titles += tuple(f"batch {batch}" for batch in batches)
    rows = []
    for point in (found.original, *found.points):
        speedups = point.faster
        rows.append(
            (
                (point.asked + (" *" if point.on_front else "")) if point.asked else "original",
                amount("params", point.parameters),
                amount("macs", point.macs),
                amount("size", point.file_bytes),
                *(score_in_words(getattr(point, name)) for name in scores),
                f"{point.lost:.2f}" if point.asked else "",
                *(times(speedups[batch]) if batch in speedups else "-" for batch in batches),
            )
        )
    return titles, rows


def told(found: TradeOff, point: Point) -> str:
    """Return a point in a sentence: what was asked, what it costs, what it loses."""
    whole = found.original
    counts = [
        f"{amount('params', point.parameters)} of {amount('params', whole.parameters)} parameters",
        f"{amount('macs', point.macs)} of {amount('macs', whole.macs)} MACs",
    ]
    faster = [f"{times(ratio)} as fast at batch {batch}" for batch, ratio in point.faster.items()]
    share = point.heldout is None or point.heldout.is_share
    lost = f"{point.lost:.2f} {'points' if share else f'percent of its {whole.heldout and whole.heldout.metric}'}"
    return f"--{found.kind} {point.asked}, {', '.join(counts + faster)}; held-out data say it loses {lost}."


def to_csv(found: TradeOff) -> str:
    """Return the points as comma-separated values, the original first; numbers are plain."""
    text = io.StringIO()
    batches = [each.batch for each in found.original.speedups]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["asked", "folder", "parameters", "macs", "bytes", "heldout", "test", "lost", "on_front", "seconds"]
        + [f"speedup_{batch}" for batch in batches]
    )
    for point in (found.original, *found.points):
        scores = ["" if score is None else repr(score.value) for score in (point.heldout, point.test)]
        figures = [point.parameters, point.macs, point.file_bytes, *scores, f"{point.lost:.6g}", int(point.on_front)]
        speedups = [f"{point.faster.get(batch, math.nan):.6g}" for batch in batches]
        writer.writerow([point.asked, point.folder, *figures, f"{point.seconds:.1f}", *speedups])
    return text.getvalue()


def to_text(found: TradeOff) -> str:
    """Return the JSON text of a sweep."""
    return dumps(encode(found), indent=2) + "\n"


def read_trade_off(path: Path) -> TradeOff:
    """Read the sweep of a folder, or its ``sweep.json``.

    Raises:
        InputError: it cannot be read, or is none.
    """
    file = path / NAME if path.is_dir() else path
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
        return decode(TradeOff, document)
    except (OSError, ValueError, RecursionError, MismatchError) as error:
        found = error.strerror or str(error) if isinstance(error, OSError) else f"something else ({error})"
        raise InputError(
            str(file), expected="the sweep.json of `onnxadmm sweep`", found=found, way_out="give the folder of a sweep"
        ) from error
