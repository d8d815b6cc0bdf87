"""Budgets of a sweep in processes of their own: ``python -m onnxadmm.one_budget FOLDER`` is one of them.

FOLDER holds ``order.pickle``, made by this package a moment before; ``error.json`` is written there where it fails.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from onnxadmm import errors
from onnxadmm.child_process import command, end_with_parent, ending, environment
from onnxadmm.compress import compress
from onnxadmm.errors import OnnxAdmmError, OptionError, WorkerError
from onnxadmm.operators.outside import load_sources, sources
from onnxadmm.run.shared import Shared

_PROGRAM: Final = ("-m", "onnxadmm.one_budget")
_ORDER: Final = "order.pickle"
_ERROR: Final = "error.json"
_SECONDS_BETWEEN_LOOKS: Final = 0.05


def compress_apart(
    calls: Sequence[Mapping[str, Any]], *, shared: Path, jobs: int, on_done: Callable[[int], None]
) -> None:
    """Call ``compress`` in processes of their own, some at a time, and wait until all have ended.

    Args:
        calls: arguments of each by name.
        shared: file of what they go on from, as ``Shared.write`` has written it; they leave it as it is.
        jobs: processes at a time.
        on_done: told the number of a call, from 0, that has come to its end.

    Raises:
        OnnxAdmmError: the first of the calls, in their order, that failed; those that ran beside it came to their end.
    """
    failed: dict[int, OnnxAdmmError] = {}
    with ExitStack() as stack:
        running: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}
        waiting = list(range(len(calls)))
        try:
            while running or (waiting and not failed):
                while waiting and len(running) < jobs and not failed:
                    number = waiting.pop(0)
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxadmm-budget-")))
                    with (folder / _ORDER).open("wb") as file:
                        pickle.dump((dict(calls[number]), shared.resolve(), sources()), file)
                    running[number] = (_started(folder), folder)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for number, (process, folder) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[number]
                    if process.returncode == 0:
                        on_done(number)
                    else:
                        failed[number] = _error(folder, process.returncode)
        finally:
            # Whatever ends this ends them as well; each leaves a checkpoint, as a run that is interrupted does.
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    if failed:
        raise failed[min(failed)]


def refuse_unsendable(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of ``compress`` that cannot be handed to another process.

    Raises:
        OptionError: so it is, or a rule of the user's own is in no file.
    """
    try:
        with Path(os.devnull).open("wb") as nowhere:
            pickle.dump((dict(arguments), sources()), nowhere)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise OptionError(
            "--jobs",
            expected="paths, arrays and functions of a module, which other processes can be handed",
            found=f"{error}"[:200],
            way_out="give these, or leave --jobs out",
        ) from error


def _started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "stderr.txt").open("wb") as said:
        words = [*command(*_PROGRAM), str(folder)]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment())


def _error(folder: Path, status: int) -> OnnxAdmmError:
    if (folder / _ERROR).exists():
        told = json.loads((folder / _ERROR).read_text())
        kind = getattr(errors, told.pop("error"))
        made: OnnxAdmmError = kind(told.pop("thing"), **told)
        return made
    return WorkerError(
        "the process of a budget",
        expected="its end",
        found=ending(status, (folder / "stderr.txt").read_bytes()),
        way_out="leave --jobs out, which needs less memory",
    )


def main(folder: Path) -> int:
    """Follow the order in a folder; return the exit status."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide
    call, path, rules = pickle.loads((folder / _ORDER).read_bytes())
    load_sources(rules)
    shared = Shared()
    if path.exists():
        shared.read(path)
    try:
        compress(**call, shared=shared)
    except OnnxAdmmError as error:
        parts = {key: getattr(error, key) for key in ("thing", "expected", "found", "way_out")}
        (folder / _ERROR).write_text(json.dumps({"error": type(error).__name__, **parts}))
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
