"""``onnxadmm report``, and how every verb prints one."""

import re
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxadmm.cli.options import JsonOption
from onnxadmm.console import print_json, print_line, stdout_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxadmm.compress import Compressed
    from onnxadmm.demo import DemoLine
    from onnxadmm.report.report import Report


def run(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="a report.json, or the folder of a run")],
    as_json: JsonOption = False,
) -> None:
    """Print the report of an earlier run."""
    from onnxadmm.report.report import read_report

    print_report(read_report(path), as_json=as_json)


def print_report(report: "Report", *, as_json: bool) -> None:
    """Print a report to stdout, as tables or as the document that report.json is."""
    from onnxadmm.report.report import to_document
    from onnxadmm.report.table import report_view

    if as_json:
        print_json(to_document(report))
    else:
        stdout_console().print(report_view(report))


def print_demo_lines(lines: "Sequence[DemoLine]") -> None:
    """Print to stdout the ways that the demo has gone, beside each other."""
    from onnxadmm.report.fitting import Fitting, Rows

    titles = ("", "parameters", "MACs per sample", "test accuracy", "took")
    rows = [(line.way, line.parameters, line.macs, line.accuracy, line.took) for line in lines]
    stdout_console().print(Fitting(Rows(titles, rows, folds=())))


def print_next_steps(result: "Compressed", out: Path) -> None:
    """Print to stdout where the files of a run are, and how its model is used."""
    from onnxadmm.output import MODEL_NAME, names_of_results

    graph = result.model.ir.graph
    inputs = [str(value.name) for value in graph.inputs if value.name not in graph.initializers]
    feeds = ", ".join(f"{name!r}: {_variable(name)}" for name in inputs)
    for line in (
        f"In {out}: {', '.join(names_of_results(out))}. Any onnxruntime runs the model:",
        "",
        "    import onnxruntime",
        f"    session = onnxruntime.InferenceSession({str(out / MODEL_NAME)!r})",
        f"    outputs = session.run(None, {{{feeds}}})",
    ):
        print_line(line, stdout_console())


def _variable(name: str) -> str:
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return word if word.isidentifier() and not iskeyword(word) else f"input_{word}"
