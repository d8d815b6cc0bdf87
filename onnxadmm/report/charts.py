"""What the charts of a page show: numbers for uPlot, which draws them, and a sentence for who cannot see them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from onnxadmm.progress import Iteration, Residuals
from onnxadmm.report.layers import ConnectionsLine
from onnxadmm.report.report import Report
from onnxadmm.report.tradeoff import Point, TradeOff

#: More points than pixels say nothing more.
_MOST_POINTS: Final = 1000
_DIGITS: Final = 6
_WORDS: Final[Mapping[str, str]] = {
    "params": "Parameters",
    "macs": "Multiply-accumulates",
    "size": "Bytes of the file",
    "latency": "Milliseconds",
}


@dataclass(frozen=True)
class Series:
    """One line, or one row of bars.

    Attributes:
        name: in the legend.
        colour: name of a colour of the style sheet.
        values: one per place, None where there is none.
        dash: whether the line is broken.
        told: what the legend tells in place of the values, where bars are stacked.
        summed: whether the sum of the values says something.
    """

    name: str
    colour: str
    values: tuple[float | None, ...]
    dash: bool = False
    told: tuple[float, ...] | None = None
    summed: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: what tells it from others on the page.
        title: above it.
        kind: lines on a linear or a logarithmic scale, or bars.
        unit: ``"%"`` or empty.
        along: what the places are counted in.
        x: the places.
        boundary: the place where the network was cut, None without.
        sync: charts of the same name show the same place.
        series: what is drawn, over each other in this order.
    """

    id: str
    title: str
    kind: Literal["linear", "log", "bars"]
    unit: str
    along: str
    x: tuple[float, ...]
    boundary: float | None
    sync: str
    series: tuple[Series, ...]

    @property
    def described(self) -> str:
        """The chart in a sentence: where each line begins, ends, and how far it goes."""
        return f"{self.title}. " + " ".join(filter(None, map(self._described, self.series)))

    def _described(self, series: Series) -> str:
        values = [value for value in series.told or series.values if value is not None]
        if not values:
            return ""
        if self.kind == "bars":
            return f"{series.name}: {sum(values):,.0f} in all."
        return (
            f"{series.name}: from {values[0]:.4g}{self.unit} to {values[-1]:.4g}{self.unit}, "
            f"between {min(values):.4g}{self.unit} and {max(values):.4g}{self.unit}."
        )

    def document(self) -> dict[str, Any]:
        """The chart as the script of the page reads it."""
        return asdict(self)


def charts_of_run(report: Report) -> tuple[Chart, ...]:
    """Held-out figure, loss, cost against budget, and residuals over the run; those that there is something of."""
    rows = _thinned(report.history)
    if not rows:
        return ()
    x, boundary = _epochs(rows)
    share = report.after.heldout is not None and report.after.heldout.is_share
    metric = "accuracy" if report.after.heldout is None else report.after.heldout.metric

    def line(name: str, colour: str, value: Callable[[Iteration], float | None], *, dash: bool = False) -> Series:
        return Series(name, colour, tuple(_number(value(row)) for row in rows), dash)

    factor = 100.0 if share else 1.0
    charts = [
        ("heldout", f"Held-out {metric}", "linear", "%" if share else "",
         (line(metric, "accent", lambda row: None if row.heldout is None else factor * row.heldout),)),
        ("loss", "Training loss", "linear", "", (line("loss", "accent", lambda row: row.loss),)),
        ("cost", f"{_counted(report)} against the budget", "linear", "",
         (line("budget", "warm", lambda row: row.budget, dash=True), line("cost", "accent", lambda row: row.cost))),
        ("residuals", "Residuals of the splitting", "log", "",
         (line("units, primal", "accent", lambda row: _part(row.neurons, "primal")),
          line("units, dual", "accent", lambda row: _part(row.neurons, "dual"), dash=True),
          line("connections, primal", "warm", lambda row: _part(row.connections, "primal")),
          line("connections, dual", "warm", lambda row: _part(row.connections, "dual"), dash=True))),
    ]  # fmt: skip
    return tuple(
        Chart(name, title, kind, unit, "epoch", x, boundary, "run", _filled(series))  # type: ignore[arg-type]
        for name, title, kind, unit, series in charts
        if _filled(series)
    )


def chart_of_connections(line: ConnectionsLine) -> Chart:
    """How many connections of each size were pruned, and how many stayed, on top of each other."""
    middles = tuple(_rounded((low + high) / 2) for low, high in zip(line.edges, line.edges[1:], strict=False))
    both = tuple(float(kept + pruned) for kept, pruned in zip(line.kept, line.pruned, strict=True))
    return Chart(
        id="connections",
        title="Connections by their size in the original",
        kind="bars",
        unit="",
        along="size",
        x=middles,
        boundary=None,
        sync="",
        series=(
            Series("stayed", "before", both, told=tuple(map(float, line.kept)), summed=True),
            Series("pruned", "warm", tuple(map(float, line.pruned)), summed=True),
        ),
    )


def charts_of_sweep(found: TradeOff) -> tuple[Chart, ...]:
    """What the points of a sweep reach, and how fast they are, over what they cost; the original is the last place."""
    points = sorted((found.original, *found.points), key=lambda point: point.cost(found.kind))
    whole = found.original.cost(found.kind) or 1.0
    x = tuple(_rounded(100 * point.cost(found.kind) / whole) for point in points)
    score = found.original.heldout or found.original.test
    factor, unit = (100, "%") if score is not None and score.is_share else (1, "")

    def line(name: str, colour: str, pick: Callable[[Point], float | None], *, dash: bool = False) -> Series:
        return Series(name, colour, tuple(_number(pick(point)) for point in points), dash)

    def speedup(batch: int) -> Callable[[Point], float | None]:
        return lambda point: point.faster.get(batch)

    reached = (
        line("held-out", "accent", lambda point: None if point.heldout is None else factor * point.heldout.value),
        line("test", "warm", lambda point: None if point.test is None else factor * point.test.value, dash=True),
    )
    batches = [each.batch for each in found.original.speedups]
    faster = tuple(
        line(f"batch {batch}", colour, speedup(batch))
        for batch, colour in zip(batches, ("accent", "warm"), strict=False)
    )
    along = f"% of the original's {_WORDS[found.kind].lower()}"
    title = f"{score.metric.capitalize()} against cost" if score is not None else ""
    charts = (
        Chart("reached", title, "linear", unit, along, x, None, "sweep", _filled(reached)),
        Chart("faster", "Speed-up against cost", "linear", "", along, x, None, "sweep", _filled(faster)),
    )
    return tuple(chart for chart in charts if chart.series and len(x) > 1)


def thinned_evenly(rows: Sequence[Iteration], most: int) -> tuple[Iteration, ...]:
    """At most so many of the rows, evenly chosen, the first and the last among them."""
    if len(rows) <= most:
        return tuple(rows)
    return tuple(rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most))


def _thinned(rows: Sequence[Iteration]) -> tuple[Iteration, ...]:
    return thinned_evenly(rows, _MOST_POINTS)


def _epochs(rows: Sequence[Iteration]) -> tuple[tuple[float, ...], float | None]:
    """Epochs since the run began, and where the second training does."""
    places: list[float] = []
    offset, boundary = 0.0, None
    for number, row in enumerate(rows):
        if number and row.stage != rows[number - 1].stage:
            boundary = offset = places[-1]
        places.append(_rounded(offset + row.epoch))
    return tuple(places), boundary


def _counted(report: Report) -> str:
    """What the cost of the iterations counts."""
    kinds = [line.kind for line in report.budgets if line.kind in _WORDS]
    return _WORDS[kinds[0]] if len(kinds) == 1 else "Cost"


def _filled(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(each for each in series if any(value is not None for value in each.values))


def _part(residuals: Residuals | None, name: str) -> float | None:
    """A residual on a logarithmic scale, where zero has no place."""
    value: float | None = None if residuals is None else getattr(residuals, name)
    return value if value is not None and value > 0 else None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


def _rounded(value: float) -> float:
    """A number with as many digits as can be seen; what is no number has a place all the same, at zero."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else 0.0
