"""Calls in processes of their own: an order in a folder, a module that follows it, and its error as it was raised.

The folder holds ``order.pickle``, made by this package a moment before; ``error.json`` is written there where the call
fails.
"""

import json
import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from onnxadmm import errors
from onnxadmm.child_process import command, end_with_parent, ending, environment
from onnxadmm.errors import OnnxAdmmError, OptionError, WorkerError
from onnxadmm.operators.outside import load_sources, sources

_ORDER: Final = "order.pickle"
_ERROR: Final = "error.json"
_SAID: Final = "stderr.txt"


def refuse_unsendable(arguments: Mapping[str, Any], *, thing: str, way_out: str) -> None:
    """Refuse arguments that cannot be handed to another process.

    Args:
        thing, way_out: of the message.

    Raises:
        OptionError: so it is, or a rule of the user's own is in no file.
    """
    try:
        with Path(os.devnull).open("wb") as nowhere:
            pickle.dump((dict(arguments), sources()), nowhere)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise OptionError(
            thing,
            expected="paths, arrays and functions of a module, which other processes can be handed",
            found=f"{error}"[:200],
            way_out=way_out,
        ) from error


def start(
    module: str, order: object, folder: Path, *, answers: bool = False, temporary: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that follows an order.

    Args:
        module: what it runs, with the folder as its only word; it calls ``follow``.
        order: what ``follow`` gives to the work.
        folder: an empty one.
        answers: read what it prints through ``stdout``.
        temporary: folder of its temporary files; None: that of this process.
    """
    with (folder / _ORDER).open("wb") as file:
        pickle.dump((order, sources()), file)
    there = {} if temporary is None else {"TMPDIR": str(temporary)}
    with (folder / _SAID).open("wb") as said:
        return subprocess.Popen(
            [*command("-m", module), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else said,
            stderr=said,
            env={**environment(), **there},
        )


def error_of(folder: Path, status: int, *, thing: str, way_out: str) -> OnnxAdmmError:
    """Return why a process did not come to its end: what it raised, or how it ended.

    Args:
        status: its exit status.
        thing, way_out: of the message, where it raised nothing.
    """
    if (folder / _ERROR).exists():
        told = json.loads((folder / _ERROR).read_text())
        kind = getattr(errors, told.pop("error"))
        made: OnnxAdmmError = kind(told.pop("thing"), **told)
        return made
    found = ending(status, (folder / _SAID).read_bytes())
    return WorkerError(thing, expected="its end", found=found, way_out=way_out)


def follow(folder: Path, work: Callable[[Any], object]) -> int:
    """Do some work with the order in a folder, in the process that was started for it; return the exit status."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide
    order, rules = pickle.loads((folder / _ORDER).read_bytes())
    load_sources(rules)
    try:
        work(order)
    except OnnxAdmmError as error:
        parts = {key: getattr(error, key) for key in ("thing", "expected", "found", "way_out")}
        (folder / _ERROR).write_text(json.dumps({"error": type(error).__name__, **parts}))
        return error.exit_status
    return 0
