"""``onnxadmm estimate``."""

import inspect
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from onnxadmm.cli import compress
from onnxadmm.cli.compress import arguments
from onnxadmm.cli.options import OF_BUDGETS, OutOption, read_budget
from onnxadmm.console import print_json, print_line, progress_of, stdout_console
from onnxadmm.errors import OptionError

#: Options of ``compress`` that are about a run that there is, or that --hours says.
_OTHERS: Final = ("out", "force", "resume", "max_minutes", "quick", "dry_run")


def run(**given: Any) -> None:
    """Say what a run would take: hours, memory, disk and cost by stage; with --hours the epochs that fit them."""
    from onnxadmm.estimate.call import estimate
    from onnxadmm.estimate.view import estimate_view
    from onnxadmm.report.codec import encode

    own = {name: given.pop(name) for name in _OWN if name != "out"}
    asked = {**{name: parameter.default for name, parameter in _ALL.items()}, **given}
    if asked["max_drop"] is not None and asked["calibrate"] is None:
        raise OptionError(
            "--max-drop", expected="one run", found="a search of several", way_out="give a budget instead"
        )
    budget = read_budget({name: asked[name] for name in OF_BUDGETS}, asked["connections"])
    with progress_of(quiet=asked["quiet"]) as progress:
        found = estimate(**{**arguments(asked), **own}, budget=budget, progress=progress)
    if asked["as_json"]:
        totals = {name: getattr(found, name) for name in ("seconds", "memory_bytes", "disk_bytes", "cost")}
        print_json({**encode(found), **totals})
        return
    stdout_console().print(estimate_view(found))
    print_line(found.command, stdout_console())


_ALL: Final = inspect.signature(compress.run).parameters


def _option(name: str, default: object, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_OWN: Final = {
    parameter.name: parameter
    for parameter in (
        _option("out", Path("out"), OutOption),
        _option(
            "hours",
            None,
            Annotated[float | None, typer.Option("--hours", help="shorten the epochs of both trainings until it fits")],
        ),
        _option(
            "samples",
            None,
            Annotated[
                int | None, typer.Option("--samples", help="that those of --data stand for, 1281167 [themselves]")
            ],
        ),
        _option(
            "cores",
            None,
            Annotated[int | None, typer.Option("--cores", help="of each machine of the run [those of this one]")],
        ),
        _option("machines", 1, Annotated[int, typer.Option("--machines", help="that train together")]),
        _option(
            "link_mbit", 1000.0, Annotated[float, typer.Option("--link-mbit", help="megabits a second between them")]
        ),
        _option(
            "price_per_core_hour",
            None,
            Annotated[float | None, typer.Option("--price-per-core-hour", help="of one core, in any currency")],
        ),
    )
}
run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*(parameter for name, parameter in _ALL.items() if name not in _OTHERS), *_OWN.values()]
)
