"""``onnxadmm pick``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxadmm.cli.options import ForceOption, JsonOption
from onnxadmm.console import print_json, print_line, stdout_console
from onnxadmm.files import refuse_input


def run(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="the folder of a sweep")],
    max_drop: Annotated[
        str, typer.Option("--max-drop", help="points of held-out accuracy that may be lost, or 2%; of a loss, percent")
    ] = "1",
    by: Annotated[
        str | None, typer.Option("--by", help="what costs: macs, params, size or latency [what was swept]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write a copy of its model there, as one file")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the smallest network of a sweep that loses no more than it may."""
    from onnxadmm.graph.model import load, save
    from onnxadmm.output import MODEL_NAME, PAGE_NAME, names_of_results
    from onnxadmm.report.codec import encode
    from onnxadmm.report.tradeoff import CSV_NAME, NAME, read_trade_off, told

    found = read_trade_off(folder)
    point = found.pick(max_drop, by=by)  # type: ignore[arg-type]  # it checks the word
    model = folder / point.folder / MODEL_NAME
    if output is not None:
        results = [folder / each.folder for each in found.points]  # a sweep without one of its points is none any more
        files = [path / name for path in results for name in names_of_results(path)]
        refuse_input(output, *(folder / name for name in (NAME, CSV_NAME, PAGE_NAME)), *files)
        save(load(model), output, force=force)
    if as_json:
        print_json(encode(point))
    else:
        print_line(f"{output or model}: {told(found, point)}", stdout_console())
