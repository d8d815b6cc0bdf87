"""Arguments and options that several verbs share, and how their text is read."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import COUNTED, Budget

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="an .onnx file")]
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the results")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of every random choice")]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="GLOB", help="groups, layers or weights that must stay")
]
KeepOption = Annotated[
    int | None,
    typer.Option(
        "--keep-at-least",
        help="fewest units that stay in a group; 0: branches of sums may go altogether [1; compress --latency: 0]",
    ),
]
RatioLimitOption = Annotated[str, typer.Option("--max-ratio", help="largest share of a group that goes")]
RoundOption = Annotated[
    int | None, typer.Option("--round-to", help="kept counts from this on are multiples of it (the SIMD block)")
]
InexactOption = Annotated[bool, typer.Option("--inexact", help="also prune through operators that mix channels")]
FeaturesOption = Annotated[
    bool,
    typer.Option("--features", help="columns behind a Flatten may go one by one, and not a channel's all at once"),
]
CustomOpsOption = Annotated[
    list[Path] | None,
    typer.Option("--custom-ops", metavar="LIBRARY", help="shared library of custom operators; may be repeated"),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="an input that is the same for every sample; may be repeated"),
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
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape", metavar="NAME:SHAPE", help="size where the file leaves it free, x:1,3,48,320; may be repeated"
    ),
]
ResizeOption = Annotated[
    int | None,
    typer.Option("--resize", metavar="N", help="pixels that the shorter side of images is brought to [as --crop]"),
]
CropOption = Annotated[
    int | None,
    typer.Option("--crop", metavar="N", help="pixels of the middle that is cut out of them [what the model reads]"),
]
MaxBadOption = Annotated[
    float, typer.Option("--max-bad", help="share of the images that may be damaged; they are left out")
]
CacheOption = Annotated[
    str | None,
    typer.Option("--cache", metavar="DIR", help="keeps decoded images and the teacher's answers for the next runs"),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="what decides: accuracy, top-5, f1, mean-iou or perplexity; of numbers r2 or mae [accuracy; mse]",
    ),
]
SparseOption = Annotated[bool, typer.Option("--sparse/--dense", help="store weights with pruned connections sparsely")]
SingleFileOption = Annotated[
    bool, typer.Option("--single-file", help="weights inside of the file, also where the model has external data")
]


QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="say nothing on the way, only the result and errors")]

#: What a verb receives of the options that ``counts`` gives it, by their names.
Amounts = dict[str, Any]


#: What a budget may say beside amounts, by name: default and option.
_MORE_OF_BUDGETS: Final = {
    "speedup": (None, Annotated[float | None, typer.Option("--speedup", help="times as fast: 2 is --latency 0.5")]),
    "latency_batch": (1, Annotated[int, typer.Option("--latency-batch", help="batch size that --latency is of")]),
}


#: All that the command line says of a budget, by the names of its options.
OF_BUDGETS: Final = (*COUNTED, *_MORE_OF_BUDGETS)


def counts(run: Callable[..., None]) -> Callable[..., None]:
    """Give a verb an option for all that a budget may count; its parameter ``amounts`` receives what was asked for."""
    signature = inspect.signature(run)
    options = [
        _of_budget(
            kind,
            None,
            Annotated[
                str | None,
                typer.Option(f"--{kind}", help=f"{counted.words} that may stay: 0.3, 30% or {counted.example}"),
            ],
        )
        for kind, counted in COUNTED.items()
    ]
    options += [_of_budget(name, default, annotation) for name, (default, annotation) in _MORE_OF_BUDGETS.items()]

    @functools.wraps(run)
    def with_amounts(**given: Any) -> None:
        run(amounts={name: given.pop(name) for name in OF_BUDGETS}, **given)

    place = list(signature.parameters).index("amounts")
    parameters = list(signature.parameters.values())
    parameters[place : place + 1] = options
    with_amounts.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_amounts


def _of_budget(name: str, default: object, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def read_budget(amounts: Amounts, connections: str | None = None) -> Budget | None:
    """Return the budget that was asked for, None when none was.

    Raises:
        OptionError: an amount cannot be used.
    """
    speedup, batch = amounts["speedup"], amounts["latency_batch"]
    counted: dict[str, Any] = {kind: amounts[kind] for kind in COUNTED}
    if speedup is not None:
        if counted["latency"] is not None or speedup < 1:
            raise OptionError(
                "--speedup",
                expected="at least 1, and no --latency beside it",
                found=f"{speedup:g}" if speedup < 1 else f"--latency {counted['latency']} as well",
                way_out="give one of them: --speedup 2 is --latency 0.5",
            )
        counted["latency"] = f"{1 / speedup:.6g}"
    if connections is None and all(amount is None for amount in counted.values()):
        return None
    return Budget(**counted, latency_batch=batch, connections=connections)


def read_inputs(pairs: list[str] | None) -> dict[str, list[float] | list[int]]:
    """Read values of inputs: numbers, true and false, separated by commas.

    Raises:
        OptionError: something else stands there.
    """
    found: dict[str, list[float] | list[int]] = {}
    for pair in pairs or []:
        name, _, text = pair.rpartition("=")
        words = [{"true": "1", "false": "0"}.get(word.strip().lower(), word.strip()) for word in text.split(",")]
        try:
            if not name:
                raise ValueError
            found[name] = [float(word) for word in words]
            found[name] = [int(word) for word in words]
        except ValueError as error:
            if name in found:
                continue  # numbers, though not whole ones
            raise OptionError(
                "--input", expected="NAME=VALUE", found=repr(pair), way_out="write e.g. scale=2 or size=640,640"
            ) from error
    return found


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


def read_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Read shapes of inputs, None where none is given.

    Raises:
        OptionError: something else stands there, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, numbers = text.rpartition(":")
        try:
            shape = tuple(int(number) for number in numbers.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or name in shapes:
            raise OptionError(
                "--input-shape",
                expected="NAME:SHAPE, once for each input",
                found=repr(text),
                way_out="write e.g. x:1,3,48,320",
            )
        shapes[name] = shape
    return shapes or None
