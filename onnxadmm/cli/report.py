"""``onnxadmm report``, and how every verb prints one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxadmm.cli.options import ForceOption, JsonOption
from onnxadmm.console import print_json, print_line, stdout_console
from onnxadmm.errors import InputError
from onnxadmm.files import refuse_existing, refuse_input
from onnxadmm.output import PAGE_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxadmm.demo import DemoLine
    from onnxadmm.report.report import Report


def run(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="a report.json, or the folder of a run or a sweep")],
    html: Annotated[Path | None, typer.Option("--html", help="write it as a page into this file")] = None,
    opened: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the report of an earlier run, or the points of a sweep."""
    from onnxadmm.report.reading import HISTORY_NAME, NAME, read_report

    folder = path if path.is_dir() else path.parent
    if _is_sweep(path):
        _show_sweep(path, html=html, force=force, as_json=as_json)
        if opened:
            _open(html if html is not None else folder / PAGE_NAME)
        return
    if html is not None:
        refuse_input(html, folder / NAME, folder / HISTORY_NAME, path)
        refuse_existing(html, force=force)
    report = read_report(path)
    if html is not None:
        from onnxadmm.report.page import page_of_report
        from onnxadmm.report.writer import write_text

        write_text(html, page_of_report(report))
    print_report(report, as_json=as_json)
    if opened:
        _open(html if html is not None else folder / PAGE_NAME)


def _is_sweep(path: Path) -> bool:
    from onnxadmm.report.reading import NAME
    from onnxadmm.report.tradeoff import NAME as SWEEP_NAME

    if path.is_dir():
        return (path / SWEEP_NAME).exists() and not (path / NAME).exists()
    return path.name == SWEEP_NAME


def _show_sweep(path: Path, *, html: Path | None, force: bool, as_json: bool) -> None:
    from onnxadmm.report.codec import encode
    from onnxadmm.report.page import page_of_sweep
    from onnxadmm.report.table import sweep_view
    from onnxadmm.report.tradeoff import NAME, read_trade_off
    from onnxadmm.report.writer import write_text

    if html is not None:
        refuse_input(html, path, path / NAME)
        refuse_existing(html, force=force)
    found = read_trade_off(path)
    if html is not None:
        write_text(html, page_of_sweep(found))
    if as_json:
        print_json(encode(found))
    else:
        stdout_console().print(sweep_view(found))


def _open(page: Path) -> None:
    """Open a page in the browser of the desktop.

    Raises:
        InputError: there is no page, or no browser.
    """
    if not page.is_file():
        raise InputError(
            str(page),
            expected="the page of a run",
            found="none",
            way_out="make one with --html, in a file of your choice",
        )
    import webbrowser  # late, as whatever else a verb alone needs

    if not webbrowser.open(page.resolve().as_uri()):
        raise InputError(
            str(page), expected="a browser to open it", found="none", way_out="open the file in one of your own"
        )


def print_report(report: "Report", *, as_json: bool) -> None:
    """Print a report to stdout, as tables or as the document that report.json is."""
    from onnxadmm.report.reading import to_document
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


def print_next_steps(report: "Report", out: Path) -> None:
    """Print to stdout where the files of a run are, and how its model is used."""
    from onnxadmm.output import MODEL_NAME, names_of_results
    from onnxadmm.report.snippets import python_lines

    inputs = [line.name for line in report.inputs]
    others = [
        line
        for variant in report.variants
        for line in ("", f"{out / variant.file} runs likewise: the same network in {variant.name}.")
    ]
    for line in (
        f"The report as a page: {out / PAGE_NAME}",
        f"In {out}: {', '.join(names_of_results(out))}. Any onnxruntime runs the model:",
        "",
        *(f"    {line}" for line in python_lines(str(out / MODEL_NAME), inputs)),
        *others,
    ):
        print_line(line, stdout_console())
