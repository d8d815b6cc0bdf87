"""The verbs by name, and the exit status of each.

Every verb is the function ``run`` of the module of its name beside this one; its signature holds its options, its
docstring is its help.
"""

import sys
import tempfile
import traceback
from typing import Annotated

import typer

from onnxadmm.cli import bench, compress, demo, doctor, inspect, mask, plan, report, shrink, verify
from onnxadmm.console import print_error, print_line, stderr_console
from onnxadmm.errors import InputError, OnnxAdmmError
from onnxadmm.run.checkpoint import ending_on_sigterm

_ELSEWHERE = "make room there, or point TMPDIR and the output elsewhere"

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
        # Every verb clears away what it has begun, also when the terminal goes or the system ends it.
        with ending_on_sigterm():
            app([word for word in words if word != "--debug"], prog_name="onnxadmm")
    except SystemExit as stop:
        # typer ends every command this way: 0, 2 for a wrong option, or the status of a typer.Exit.
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except OnnxAdmmError as error:
        if debug:
            traceback.print_exc()
        print_error(error, stderr_console())
        return error.exit_status
    except (OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        scarce = _scarcity(error)
        print_error(scarce, stderr_console())
        return scarce.exit_status
    except Exception as error:
        if debug:
            traceback.print_exc()
        defect = f"Error: a defect of onnxadmm: {type(error).__name__}: {error}; use --debug to see where"
        print_line(defect, stderr_console())
        return 1
    return 0


def _scarcity(error: OSError | MemoryError) -> OnnxAdmmError:
    """Say in a sentence that a resource of the system is missing: room, memory, a right."""
    if isinstance(error, MemoryError):
        return InputError("memory", expected="enough of it", found=str(error) or "none left", way_out="use less data")
    thing = next((str(name) for name in (error.filename, error.filename2) if name), tempfile.gettempdir())
    found = error.strerror or str(error) or type(error).__name__
    return InputError(thing, expected="a file system with room and access", found=found, way_out=_ELSEWHERE)
