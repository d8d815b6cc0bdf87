"""Processes that begin with everything imported: forks of one that has done nothing but import.

A process that starts from nothing spends more on its imports than most verbs take.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxadmm.cli import main

_IMPORTED = [
    "onnxadmm.cli.bench",
    "onnxadmm.cli.compress",
    "onnxadmm.compress",
    "onnxadmm.bench.latency",
    "onnxadmm.report.table",
    "onnxadmm.train.preflight.child",
    "onnxruntime",
    "onnxsim",
]


@dataclass(frozen=True)
class Ended:
    """How a process ended, its status negative for a signal, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: object, timeout: float = 300) -> Ended:
    """Run ``onnxadmm`` with some words in a process of its own, where a crash ends no test."""
    return call(main, [str(word) for word in words], timeout=timeout)


def call(function: Callable[..., int | None], *arguments: Any, temporary: Path | None = None, timeout: float) -> Ended:
    """Call a module's function in a process of its own, which ends with what it returns.

    Args:
        temporary: folder for the temporary files of the process; None: the usual one.

    Raises:
        TimeoutError: it took longer than ``timeout`` seconds, and was killed.
    """
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload(_IMPORTED)
    with tempfile.TemporaryDirectory() as name:
        written = Path(name) / "stdout", Path(name) / "stderr"
        process = context.Process(target=_body, args=(function, arguments, written, temporary))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{function.__name__} took longer than {timeout:g} seconds")
        assert process.exitcode is not None
        return Ended(process.exitcode, *(path.read_text(encoding="utf-8") for path in written))


def _body(
    function: Callable[..., int | None], arguments: tuple[Any, ...], written: tuple[Path, Path], temporary: Path | None
) -> None:
    if temporary is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    for number, path in enumerate(written, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.exit(function(*arguments))
