"""``onnxadmm sweep``."""

import inspect
import shlex
from typing import Annotated, Any, Final

import typer

from onnxadmm.cli import compress
from onnxadmm.cli.compress import arguments
from onnxadmm.cli.options import OF_BUDGETS, read_budget
from onnxadmm.console import print_json, print_line, progress_of, stdout_console
from onnxadmm.errors import OptionError
from onnxadmm.output import PAGE_NAME
from onnxadmm.plan.budget import COUNTED, Amount

#: Options of ``compress`` that say what is the sweep's own to say.
_OTHERS: Final = (
    *("max_drop", "by", "target", "connection_target", "preset", "mode", "max_minutes", "quick", "dry_run"),
)


def run(**given: Any) -> None:
    """Compress under several budgets, --params 0.5,0.2,0.1, that share what they can; the points side by side."""
    from onnxadmm.report.codec import encode
    from onnxadmm.report.table import sweep_view
    from onnxadmm.sweep import sweep

    jobs = given.pop("jobs", 1)
    asked = {**{name: parameter.default for name, parameter in _ALL.items()}, **given}
    lists = {kind: _amounts(asked[kind]) for kind in COUNTED}
    swept = {kind: amounts for kind, amounts in lists.items() if len(amounts) > 1}
    if len(swept) != 1:
        raise OptionError(
            "the sweep",
            expected="several amounts of one kind of cost",
            found=", ".join(f"--{kind}" for kind in swept) or "none",
            way_out="write e.g. --params 0.5,0.2,0.1; others may have one amount for all",
        )
    common = {name: None if name in swept else asked[name] for name in OF_BUDGETS}
    taken = arguments(asked)
    for name in ("targets", "connection_targets", "preset"):
        del taken[name]
    with progress_of(quiet=asked["quiet"]) as progress:
        budget = read_budget(common, asked["connections"])
        found = sweep(**taken, amounts=swept, budget=budget, jobs=jobs, progress=progress)
    if asked["as_json"]:
        print_json(encode(found))
        return
    out = asked["out"]
    stdout_console().print(sweep_view(found))
    choosing = shlex.join(["onnxadmm", "pick", str(out), "--max-drop", "1"])
    print_line(f"{out / PAGE_NAME} shows them; `{choosing}` chooses one.", stdout_console())


def _amounts(text: str | None) -> list[Amount]:
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else []


_ALL: Final = inspect.signature(compress.run).parameters
_JOBS: Final = inspect.Parameter(
    "jobs",
    inspect.Parameter.KEYWORD_ONLY,
    default=1,
    annotation=Annotated[
        int,
        typer.Option("--jobs", help="processes at a time, for --calibrate with --no-bench: budgets beside each other"),
    ],
)
run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*(parameter for name, parameter in _ALL.items() if name not in _OTHERS), _JOBS]
)
