"""The verbs by name, and the exit status of each.

Every verb is the function ``run`` of the module of its name beside this one; its signature holds its options, its
docstring is its help.
"""

import shutil
import sys
import tempfile
import traceback
from typing import Annotated, Any, Final

import typer

import onnxadmm
from onnxadmm.cli import (
    bench,
    compress,
    demo,
    doctor,
    estimate,
    inspect,
    mask,
    pick,
    plan,
    quantize,
    report,
    shrink,
    sweep,
    verify,
)
from onnxadmm.console import print_error, print_line, stderr_console
from onnxadmm.errors import InputError, OnnxAdmmError
from onnxadmm.interrupt import ending_on_ctrl_c, ending_on_sigterm
from onnxadmm.report.escaping import for_terminal

_WIDEST_HELP: Final = 100
#: What a shell says of a command that Ctrl-C ended.
_INTERRUPTED: Final = 130
#: What typer raises about words it cannot use; it is not among its public names.
_WrongWords: Final[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
#: Seconds from Ctrl-C to the end at the latest, where native code runs.
_GRACE: Final = 0.7
_LONG_GRACE: Final = 20.0
_ELSEWHERE: Final = "make room there, or point TMPDIR and the output elsewhere"

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    # Plain text wraps at any width; rich's tables cut the names of options in narrow terminals.
    rich_markup_mode=None,
    help="Make an ONNX model smaller and faster: prune it, remove what was pruned, prove that, train what is left.",
)

_OF_MODELS = (inspect, estimate, compress, sweep, pick, plan, mask, shrink, verify, quantize, bench, report)

for verb in (*_OF_MODELS, doctor, demo):
    # The whole sentence: of its own accord the list of verbs cuts long ones.
    app.command(verb.__name__.rpartition(".")[2], short_help=verb.run.__doc__)(verb.run)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"onnxadmm {onnxadmm.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Read by ``main`` before typer runs; declared here so that ``--help`` shows it."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 the input or the options are wrong; 3 nothing to prune, or the budget is out of reach; 4 verification
    failed; 1 a defect of ours; 130 Ctrl-C; 143 SIGTERM while a run was at work.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        width = min(shutil.get_terminal_size().columns, _WIDEST_HELP)
        words = [word for word in words if word != "--debug"]
        # What trains needs the end of a step to leave a checkpoint.
        grace = _LONG_GRACE if {"compress", "sweep", "demo"} & set(words[:2]) else _GRACE
        # Every verb clears away what it has begun, also when the terminal goes or the system ends it.
        with ending_on_sigterm(), ending_on_ctrl_c(grace):
            status = app(words, prog_name="onnxadmm", standalone_mode=False, terminal_width=width)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except _WrongWords as error:
        # What was typed may be the name of a file.
        error.message = "\n".join(map(for_terminal, error.message.split("\n")))
        error.show()
        return int(error.exit_code)
    except OnnxAdmmError as error:
        if debug:
            _print_traceback()
        print_error(error, stderr_console())
        return error.exit_status
    except (OSError, MemoryError) as error:
        if debug:
            _print_traceback()
        scarce = _scarcity(error)
        print_error(scarce, stderr_console())
        return scarce.exit_status
    except Exception as error:
        if debug:
            _print_traceback()
        defect = f"Error: a defect of onnxadmm: {type(error).__name__}: {error}; use --debug to see where"
        print_line(defect, stderr_console())
        return 1
    if status == _INTERRUPTED:
        print_line("Interrupted.", stderr_console())
    # The status of a typer.Exit; a verb that comes to its end returns nothing.
    return status if isinstance(status, int) else 0


def _print_traceback() -> None:
    for line in traceback.format_exc().splitlines():
        print_line(line, stderr_console())


def _scarcity(error: OSError | MemoryError) -> OnnxAdmmError:
    """Say in a sentence that a resource of the system is missing: room, memory, a right."""
    if isinstance(error, MemoryError):
        return InputError("memory", expected="enough of it", found=str(error) or "none left", way_out="use less data")
    # What writes to a stream, or to a file without a name of its own, names none.
    unnamed = f"the output, or {tempfile.gettempdir()}"
    thing = next((str(name) for name in (error.filename, error.filename2) if name), unnamed)
    found = error.strerror or str(error) or type(error).__name__
    return InputError(thing, expected="a file system with room and access", found=found, way_out=_ELSEWHERE)
