"""Arguments and options that several verbs of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="an .onnx file")]
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of every random choice")]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]
MacsOption = Annotated[str | None, typer.Option("--macs", help="multiply-accumulates that may stay: 0.3 or 20M")]
ParamsOption = Annotated[str | None, typer.Option("--params", help="parameters that may stay: 0.3 or 20M")]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="GLOB", help="groups, layers or weights that must stay")
]
KeepOption = Annotated[int, typer.Option("--keep-at-least", help="fewest units that stay in a group")]
RatioLimitOption = Annotated[float, typer.Option("--max-ratio", help="largest share of a group that goes")]
RoundOption = Annotated[
    int | None, typer.Option("--round-to", help="kept counts of large groups are multiples of this (the SIMD block)")
]
InexactOption = Annotated[bool, typer.Option("--inexact", help="also prune through operators that mix channels")]
SparseOption = Annotated[bool, typer.Option("--sparse/--dense", help="store weights with enough zeros sparsely")]
