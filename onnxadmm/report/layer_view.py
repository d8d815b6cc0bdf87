"""Layers before and after as a page shows them: bars to look at, and cells of a table to sort."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onnxadmm.report.layers import LayerLine
from onnxadmm.report.report import Report
from onnxadmm.report.words import large, milliseconds, plural

_NOTHING: Final = "\N{EN DASH}"


@dataclass(frozen=True)
class _Metric:
    """What of the layers is shown: one choice of the bars, and two columns of the table.

    Attributes:
        id: in the page.
        title: of the choice.
        short: of the column.
        of: the figures of a layer, before and after.
        told: a figure in words.
        rest: what belongs to no layer, before and after.
        summed: whether the figures of all layers add up to something.
    """

    id: str
    title: str
    short: str
    of: Callable[[LayerLine], tuple[float | None, float | None]]
    told: Callable[[float], str]
    rest: tuple[float, float] | None = None
    summed: bool = True


def layers_for_template(report: Report, anchors: Mapping[str, str]) -> dict[str, Any] | None:
    """The layers of a report as the template reads them; None where it has none.

    Args:
        report: with its layers.
        anchors: where a link to a group leads, by its name.
    """
    if not report.layers:
        return None
    metrics = _metrics(report)
    largest = {metric.id: _largest(metric, report.layers) for metric in metrics}
    rows = [
        {
            "name": line.name,
            "operator": line.operator,
            "group": line.group or "",
            "anchor": anchors.get(line.group or "", ""),
            "bars": [bar for metric in metrics if (bar := _bar(metric, line, largest[metric.id])) is not None],
            "cells": [_cell(metric, value) for metric in metrics for value in metric.of(line)],
        }
        for line in report.layers
    ]
    return {
        "told": _told(report),
        "metrics": [{"id": metric.id, "title": metric.title, "short": metric.short} for metric in metrics],
        "rows": rows,
        "totals": _totals(metrics, report.layers),
    }


def _metrics(report: Report) -> list[_Metric]:
    metrics = [
        _Metric("macs", "MACs", "MACs", lambda line: (line.macs_before, line.macs_after), large),
        _Metric(
            "parameters", "Parameters", "params", lambda line: (line.parameters_before, line.parameters_after), large
        ),
        _Metric("units", "Units", "units", lambda line: (line.units_before, line.units_after), large, summed=False),
    ]
    if report.profile is not None:
        rest = (report.profile.other_before_ms, report.profile.other_after_ms)
        title = f"Milliseconds at batch {report.profile.batch}"
        metrics.append(_Metric("ms", title, "ms", lambda line: (line.ms_before, line.ms_after), milliseconds, rest))
    return metrics


def _told(report: Report) -> str:
    told = "Every layer that computes or holds weights, in the order of the graph."
    if report.profile is not None:
        profile = report.profile
        told += (
            " Times are those of onnxruntime's own profile, of the original as it was analysed and of the result, at "
            f"batch {profile.batch} on {plural(profile.threads, 'thread')}: the median of "
            f"{plural(profile.runs, 'run')}. Profiling takes some time itself, and what was fused into a layer counts "
            "there."
        )
    return told


def _largest(metric: _Metric, lines: Sequence[LayerLine]) -> float:
    return max((value for line in lines for value in metric.of(line) if value is not None), default=0.0) or 1.0


def _bar(metric: _Metric, line: LayerLine, largest: float) -> dict[str, str] | None:
    before, after = metric.of(line)
    if not before and not after:
        return None
    return {
        "metric": metric.id,
        "before": f"{(before or 0) / largest:.4f}",
        "after": f"{(after or 0) / largest:.4f}",
        "told_before": _NOTHING if before is None else metric.told(before),
        "told_after": _NOTHING if after is None else metric.told(after),
    }


def _cell(metric: _Metric, value: float | None) -> dict[str, str]:
    if value is None:
        return {"value": "", "told": _NOTHING}
    return {"value": f"{value:.6g}" if isinstance(value, float) else str(value), "told": metric.told(value)}


def _totals(metrics: Sequence[_Metric], lines: Sequence[LayerLine]) -> list[dict[str, Any]]:
    sums = [
        [sum(value for line in lines if (value := metric.of(line)[side]) is not None) for side in (0, 1)]
        for metric in metrics
    ]
    pairs = list(zip(metrics, sums, strict=True))
    rows = []
    if any(metric.rest is not None for metric in metrics):
        cells = [metric.told(metric.rest[side]) if metric.rest else "" for metric in metrics for side in (0, 1)]
        rows.append({"title": "everything else", "cells": cells})
    cells = [
        metric.told(total[side] + (metric.rest[side] if metric.rest else 0)) if metric.summed else ""
        for metric, total in pairs
        for side in (0, 1)
    ]
    rows.append({"title": "together", "cells": cells})
    return rows
