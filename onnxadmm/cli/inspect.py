"""``onnxadmm inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    FeaturesOption,
    ForceOption,
    IgnoreOption,
    InexactOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    RulesOption,
    read_shapes,
)
from onnxadmm.console import print_json, stdout_console
from onnxadmm.errors import OptionError
from onnxadmm.files import refuse_existing, refuse_input


def run(
    model: ModelArgument,
    ignore: IgnoreOption = None,
    inexact: InexactOption = False,
    features: FeaturesOption = False,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="draw the groups into this file")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="a page of them, with what each costs")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the groups that may shrink, and what locks the others."""
    from onnxadmm.report.inspection import inspect_units, inspection_view
    from onnxadmm.surgery import find_groups

    for path in (svg, html):
        if path is not None:
            refuse_input(path, model)
            refuse_existing(path, force=force)
    if svg is not None and svg == html:
        raise OptionError(
            "--html", expected="another file than that of --svg", found=str(html), way_out="give two names"
        )
    units = find_groups(
        model,
        inexact=inexact,
        features=features,
        ignore=ignore or (),
        input_shapes=read_shapes(input_shape),
        custom_ops=custom_ops or (),
    )
    inspection = inspect_units(model.name, units, features=features)
    if svg is not None or html is not None:
        from onnxadmm.report.writer import write_text

        if svg is not None:
            from onnxadmm.report.drawing import draw_groups

            write_text(svg, draw_groups(inspection))
        if html is not None:
            from onnxadmm.report.page import page_of_inspection

            write_text(html, page_of_inspection(inspection))
    if as_json:
        print_json(inspection)
    else:
        stdout_console().print(inspection_view(inspection))
