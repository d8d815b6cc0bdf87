"""Arguments and options that several verbs share, and how their text is read."""

from pathlib import Path
from typing import Annotated

import typer

from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import Budget

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="an .onnx file")]
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the results")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of every random choice")]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]
MacsOption = Annotated[str | None, typer.Option("--macs", help="multiply-accumulates that may stay: 0.3, 30% or 20M")]
ParamsOption = Annotated[str | None, typer.Option("--params", help="parameters that may stay: 0.3, 30% or 20M")]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="GLOB", help="groups, layers or weights that must stay")
]
KeepOption = Annotated[int, typer.Option("--keep-at-least", help="fewest units that stay in a group")]
RatioLimitOption = Annotated[str, typer.Option("--max-ratio", help="largest share of a group that goes")]
RoundOption = Annotated[
    int | None, typer.Option("--round-to", help="kept counts from this on are multiples of it (the SIMD block)")
]
InexactOption = Annotated[bool, typer.Option("--inexact", help="also prune through operators that mix channels")]
CustomOpsOption = Annotated[
    list[Path] | None,
    typer.Option("--custom-ops", metavar="LIBRARY", help="shared library of custom operators; may be repeated"),
]


def _load_rules(files: list[Path] | None) -> list[Path] | None:
    if files:
        from onnxadmm.operators.outside import load_rules

        load_rules(files)
    return files


#: The rules are declared while the command line is read, before the verb looks at a model: it has nothing left to do.
RulesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--rules", metavar="FILE", callback=_load_rules, help="Python file with rules of one's own; may be repeated"
    ),
]
SparseOption = Annotated[bool, typer.Option("--sparse/--dense", help="store weights with enough zeros sparsely")]


QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="say nothing on the way, only the result and errors")]


def read_budget(macs: str | None, params: str | None, connections: str | None) -> Budget | None:
    """Return the budget that was asked for, None when none was.

    Raises:
        OptionError: an amount cannot be used.
    """
    if macs is None and params is None and connections is None:
        return None
    return Budget(macs=macs, params=params, connections=connections)


def read_numbers(option: str, text: str | None) -> list[float] | None:
    """Read numbers separated by commas.

    Raises:
        OptionError: something else stands there.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(
            option, expected="numbers separated by commas", found=repr(text), way_out="write e.g. 0.49,0.48,0.45"
        ) from error
