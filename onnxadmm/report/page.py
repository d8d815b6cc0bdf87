"""Pages in HTML, each in a file of its own that fetches nothing: the report of a run, and the groups of a model.

Names come from strangers. Whatever a template is given is spelled out and escaped by itself, and a page allows no
script but its own, by their hashes, and no address at all.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from onnxadmm.plan.budget import COUNTED
from onnxadmm.report import graph_view
from onnxadmm.report.charts import chart_of_connections, charts_of_run, charts_of_sweep, thinned_evenly
from onnxadmm.report.escaping import for_terminal
from onnxadmm.report.findings import find_notes
from onnxadmm.report.inspection import Inspection
from onnxadmm.report.layer_view import layers_for_template
from onnxadmm.report.report import Report, VariantLine
from onnxadmm.report.rows import Row, comparison_rows, comparison_titles, fewer, run_facts, verification_sentence
from onnxadmm.report.snippets import cpp_lines, further_commands, javascript_lines, python_lines
from onnxadmm.report.tradeoff import TradeOff, rows_of
from onnxadmm.report.words import amount, duration, large, percent, plural, size_in_bytes

_FOLDER: Final = "web"
_MODEL: Final = "model.onnx"
_PAGE: Final = "report.html"
_MOST_ITERATIONS: Final = 200
_MOST_IN_A_ROW: Final = 6
_DIP: Final = (
    "Held-out figures dip while units close, since the weights that remain have not settled yet; the small network is "
    "retrained afterwards (right of the dotted line), and the figures above are those of the end."
)
_NO_COURSE: Final = "Nothing was trained in iterations, so there is no curve to show."
_ITERATION_TITLES: Final = ("stage", "iteration", "epoch", "loss", "held-out", "units", "cost", "budget")


def page_of_report(report: Report) -> str:
    """The report as a page; equal reports give equal pages."""
    charts = list(charts_of_run(report))
    boxes = graph_view.boxes_of_report(report.groups, report.layers)
    connections = _connections(report)
    drawn = charts + ([connections["chart"]] if connections else [])
    layers = layers_for_template(report, graph_view.anchors(boxes))
    tiles = [_tile(row) for row in comparison_rows(report) if row.headline]
    tiles += [_tile_of(variant, report) for variant in report.variants]
    sections = [
        ("summary", "Before and after"),
        ("course", "How the run went"),
        *([("layers", "Layers")] if layers else []),
        *([("graph", "Groups")] if boxes else []),
        *([("connections", "Connections")] if connections else []),
        ("use", "Run the result"),
        ("again", "Do it again"),
    ]
    return _render(
        "report.html",
        charts=bool(drawn),
        values={
            "name": report.before.model.name,
            "lead": _lead(report),
            "sections": sections,
            "tiles": tiles,
            "columns": len(tiles) if len(tiles) <= _MOST_IN_A_ROW else -(-len(tiles) // 2),
            "titles": comparison_titles(report)[1:],
            "rows": comparison_rows(report),
            "timed": _timed(report),
            "verified": report.verification is not None and report.verification.passed,
            "verdict": verification_sentence(report),
            "budgets": list(_budgets(report)),
            "warnings": report.warnings,
            "notes": find_notes(
                report.groups, options=report.options, held_out=report.after.heldout, variants=report.variants
            ),
            "course": _course(report),
            "spent": ", ".join(f"{stage.name} {duration(stage.seconds)}" for stage in report.stages),
            "charts": charts,
            "chart_data": [chart.document() for chart in drawn],
            "iterations": _iterations(report),
            "layers": layers,
            "boxes": graph_view.for_template(boxes),
            "arcs": graph_view.arcs(boxes),
            "graph_told": _GRAPH_OF_REPORT,
            "connections": connections,
            **_use(report),
            **_again(report),
        },
    )


def page_of_inspection(inspection: Inspection) -> str:
    """The groups of a model as a page, with what each of them costs."""
    boxes = graph_view.boxes_of_inspection(inspection)
    free = [group for group in inspection.groups if group.locked is None]
    anchors = graph_view.anchors(boxes)
    return _render(
        "inspection.html",
        charts=False,
        values={
            "name": inspection.model,
            "lead": f"{large(inspection.parameters)} parameters, {large(inspection.macs)} MACs per sample"
            f"{' of ' * bool(inspection.input_shapes)}{inspection.input_shapes}; "
            f"{plural(len(free), 'group')} that may shrink, {len(inspection.groups) - len(free)} locked",
            "inexact": inspection.inexact,
            "columns": inspection.columns,
            "boxes": graph_view.for_template(boxes),
            "arcs": graph_view.arcs(boxes),
            "graph_told": _GRAPH_OF_INSPECTION,
            "groups": [
                {
                    "name": group.name,
                    "anchor": anchors[group.name],
                    "layers": ", ".join(group.layers),
                    "cells": [
                        {"value": group.units, "told": f"{group.units:,}"},
                        *(
                            {"value": "" if share is None else share, "told": "-" if share is None else percent(share)}
                            for share in (group.parameters, group.macs)
                        ),
                    ],
                    "why": group.locked or "",
                }
                for group in inspection.groups
            ],
        },
    )


def page_of_sweep(found: TradeOff) -> str:
    """Several budgets side by side as a page; each point leads to the page of its run."""
    charts = charts_of_sweep(found)
    titles, rows = rows_of(found)
    folders = [point.folder for point in (found.original, *found.points)]
    return _render(
        "sweep.html",
        charts=bool(charts),
        values={
            "name": found.model,
            "lead": f"{plural(len(found.points), 'budget')} of {COUNTED[found.kind].words}, each with the network that "
            "it led to.",
            "charts": charts,
            "chart_data": [chart.document() for chart in charts],
            "titles": titles,
            "rows": [
                {"cells": row, "page": f"{folder}/{_PAGE}" if folder else ""}
                for row, folder in zip(rows, folders, strict=True)
            ],
            "told": _FRONT,
            "command": found.command,
        },
    )


_FRONT: Final = (
    "A star marks the points that pay: no other one costs no more and loses less. What is lost is counted in points on "
    "held-out data, which every decision was made with; test data, where there are any, are only looked at."
)
_GRAPH_OF_REPORT: Final = (
    "Each line is a group of units that competed, in the order of the graph: how many there were, how many are left. "
    "Orange ones tie several layers together, as those that write into one residual stream. Hatched ones are locked, "
    "with the reason. An arc leads from a group to the group that its readers write."
)
_GRAPH_OF_INSPECTION: Final = (
    "Each line is a group of units that compete, in the order of the graph. Its bar is the share of the "
    "multiply-accumulates that go with the whole group, others staying, relative to the largest. Orange ones tie "
    "several layers together, as those that write into one residual stream. Hatched ones are locked, with the reason. "
    "An arc leads from a group to the group that its readers write."
)


def _render(template: str, *, charts: bool, values: Mapping[str, Any]) -> str:
    # All of it is our own or the library's; no template puts anything into it.
    scripts, styles = [Markup(_text("tables.js"))], _text("style.css")
    if charts:
        licence = _text("uplot-LICENSE").strip()
        scripts += [Markup(f"/*!\n{licence}\n*/\n{_text('uplot.js')}"), Markup(_text("charts.js"))]
        styles = f"{_text('uplot.css')}\n{styles}"
    return (
        _environment()
        .get_template(template)
        .render(
            values,
            styles=Markup(styles),
            scripts=scripts,
            script_hashes=Markup(" ".join(map(_hash, scripts))),
        )
    )


@cache
def _environment() -> Environment:
    """Templates that escape by themselves, spell out what cannot be seen, and miss no value."""
    environment = Environment(
        loader=PackageLoader("onnxadmm.report", _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_spelled_out,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """A name that is broken between its parts, where it has to be."""
    return Markup(re.sub(r"([/.:_])", r"\1<wbr>", str(escape(for_terminal(name)))))


def _spelled_out(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else for_terminal(value)


def _text(name: str) -> str:
    return (resources.files("onnxadmm.report") / _FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """A script as a page's policy names it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _lead(report: Report) -> str:
    how = "pruned while training"
    if report.options.get("effort"):
        how = "calibrated, then trained" if report.trained else "calibrated, without training"
    took = sum(stage.seconds for stage in report.stages)
    return f"{how[0].upper()}{how[1:]} on {report.created[:10]}" + (f" in {duration(took)}" if took else "")


def _tile(row: Row) -> dict[str, str]:
    change, _, interval = row.change.partition(" (")
    before, after = (figure.partition(" (")[0] for figure in (row.before, row.after))
    pair = f"{before} \N{RIGHTWARDS ARROW} {after}"
    (big, _, than), note = change.partition(" "), ""
    if row.kind == "quality":
        big, than, pair, note = after, "", f"{before} before", row.change
    elif row.kind == "latency":
        pair, note = f"{pair} ms", f"{interval.rstrip(')')} (95 %)"
        if big == "too":  # noisy to tell
            big, than = "too noisy", ""
    what = row.label.removeprefix("ms at ").capitalize() if row.kind == "latency" else row.label
    return {"what": what, "big": big, "than": than, "pair": pair, "note": note, "tone": "bad" if row.worse else ""}


def _tile_of(variant: VariantLine, report: Report) -> dict[str, str]:
    """The file of the result in another form, beside that of the original."""
    before, made = report.before.file_bytes, variant.figures
    big, _, than = fewer(before, made.file_bytes, "smaller", "larger").partition(" ")
    score = made.test or made.heldout
    return {
        "what": f"File in {variant.name}",
        "big": big,
        "than": than,
        "pair": f"{size_in_bytes(before)} \N{RIGHTWARDS ARROW} {size_in_bytes(made.file_bytes)}",
        "note": f"{score.metric} {percent(score.value)}" if score is not None and score.is_share else "",
        "tone": "bad" if made.file_bytes > report.after.file_bytes else "",
    }


def _timed(report: Report) -> str:
    if not report.latency:
        return ""
    return (
        "Latency: milliseconds per run, median and quartiles, the models timed in turns; the range of the speed-up is "
        "a 95 % bootstrap interval of the median ratio."
    )


def _budgets(report: Report) -> Iterator[dict[str, Any]]:
    for line in report.budgets:
        verdict = "met" if line.met else "NOT met"
        limit, reached = amount(line.kind, line.limit), amount(line.kind, line.reached)
        yield {
            "met": line.met,
            "text": f"Budget --{line.kind} {line.asked}: {limit} allowed, {reached} left, {verdict}.",
        }


def _course(report: Report) -> str:
    if not report.history:
        return _NO_COURSE
    return _DIP if any(row.kept_units is not None for row in report.history) else ""


def _iterations(report: Report) -> dict[str, Any]:
    rows = thinned_evenly(report.history, _MOST_ITERATIONS)
    count = len(report.history)
    every = "" if len(rows) == count else f" {len(rows)} of them, evenly chosen."
    return {
        "caption": f"{plural(count, 'iteration')}; history.jsonl has all of them, with residuals.{every}",
        "titles": _ITERATION_TITLES,
        "rows": [
            (
                row.stage,
                f"{row.iteration:,}",
                f"{row.epoch:.2f}",
                f"{row.loss:.4f}",
                "-" if row.heldout is None else f"{row.heldout:.4f}",
                "-" if row.kept_units is None else f"{row.kept_units:,}",
                "-" if row.cost is None else large(row.cost),
                "-" if row.budget is None else large(row.budget),
            )
            for row in rows
        ],
    }


def _connections(report: Report) -> dict[str, Any] | None:
    line = report.connections
    if line is None:
        return None
    kept, pruned = (sum(each) for each in (line.kept, line.pruned))
    rows = []
    for weight in line.weights:
        count = weight.kept + weight.pruned
        share = weight.kept / max(1, count)
        cells = [{"value": value, "told": f"{value:,}"} for value in (count, weight.kept)]
        rows.append({"name": weight.name, "cells": [*cells, {"value": share, "told": percent(share)}]})
    return {
        "told": f"Of {plural(kept + pruned, 'connection')} between units that stayed, {pruned:,} are zero now "
        f"({percent(pruned / max(1, kept + pruned))}). The bars count them by what they weighed in the original, "
        "relative to the root mean square of their tensor; the last bar holds all that were larger.",
        "chart": chart_of_connections(line),
        "rows": rows,
    }


def _use(report: Report) -> dict[str, Any]:
    names = [line.name for line in report.inputs]
    snippets = [("Python", python_lines(_MODEL, names))]
    if report.inputs:
        snippets.append(("C++", cpp_lines(_MODEL, report.inputs, report.outputs)))
        snippets.append(("Browser", javascript_lines(_MODEL, report.inputs)))
    feeds = [
        (f"{kind} {line.name}", f"{line.dtype or 'unknown type'} [{', '.join(map(str, line.shape))}]")
        for kind, lines in (("input", report.inputs), ("output", report.outputs))
        for line in lines
    ]
    others = [(variant.file, f"the same network in {variant.name}") for variant in report.variants]
    return {"snippets": snippets, "others": others, "feeds": feeds}


def _again(report: Report) -> dict[str, Any]:
    model, out, libraries = (report.options.get(name) for name in ("model", "out", "custom_ops"))
    further = further_commands(
        str(model or "MODEL"),
        str(out or "OUT"),
        str(libraries) if libraries else None,
        others=[variant.file for variant in report.variants],
    )
    return {
        "again_told": "The first command makes this result again; words in capitals stand for what lay in memory. The "
        "others prove it, time it and show this page. Paths are those of the folder that the run began in.",
        "commands": (report.command, *further),
        "simplified": report.simplified,
        "run": run_facts(report),
        "version": report.versions.get("onnxadmm", ""),
    }
