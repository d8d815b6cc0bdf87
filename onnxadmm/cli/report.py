"""``onnxadmm report``, and how every verb prints one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxadmm.cli.options import JsonOption
from onnxadmm.console import print_json, stdout_console

if TYPE_CHECKING:
    from onnxadmm.report.report import Report


def run(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="a report.json")], as_json: JsonOption = False
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
