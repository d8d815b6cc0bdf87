"""The verbs by name, and the exit status of each.

Every verb is the function ``run`` of the module of its name beside this one; its signature holds its options, its
docstring is its help.
"""

import sys
import traceback
from typing import Annotated, Final

import typer

from onnxadmm.cli import bench, compress, demo, doctor, inspect, mask, plan, report, shrink, verify
from onnxadmm.console import print_error, print_line, stderr_console
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.interrupt import ending_on_ctrl_c

#: Seconds from Ctrl-C to the end at the latest, where native code runs.
_GRACE: Final = 0.7
_LONG_GRACE: Final = 20.0

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make an ONNX model smaller and faster: prune it while training it, remove what was pruned, prove it.",
)

app.command("inspect")(inspect.run)
app.command("compress")(compress.run)
app.command("plan")(plan.run)
app.command("mask")(mask.run)
app.command("shrink")(shrink.run)
app.command("verify")(verify.run)
app.command("bench")(bench.run)
app.command("report")(report.run)
app.command("doctor")(doctor.run)
app.command("demo")(demo.run)


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Read by ``main`` before typer runs; declared here so that ``--help`` shows it."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 the input or the options are wrong; 3 nothing to prune, or the budget is out of reach; 4 verification
    failed; 1 a defect of ours.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        # What trains needs the end of a step to leave a checkpoint.
        with ending_on_ctrl_c(_LONG_GRACE if {"compress", "demo"} & set(words[:2]) else _GRACE):
            app([word for word in words if word != "--debug"], prog_name="onnxadmm")
    except SystemExit as stop:
        # typer ends every command this way: 0, 2 for a wrong option, or the status of a typer.Exit.
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except OnnxAdmmError as error:
        if debug:
            traceback.print_exc()
        print_error(error, stderr_console())
        return error.exit_status
    except Exception as error:
        if debug:
            traceback.print_exc()
        defect = f"Error: a defect of onnxadmm: {type(error).__name__}: {error}; use --debug to see where"
        print_line(defect, stderr_console())
        return 1
    return 0
