"""Budgets of a sweep in processes of their own: ``python -m onnxadmm.one_budget FOLDER`` is one of them."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from onnxadmm.apart import error_of, follow, start
from onnxadmm.compress import compress
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.run.shared import Shared

_MODULE: Final = "onnxadmm.one_budget"
_SECONDS_BETWEEN_LOOKS: Final = 0.05
_WAY_OUT: Final = "leave --jobs out, which needs less memory"


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
        running: dict[int, tuple[Popen[bytes], Path]] = {}
        waiting = list(range(len(calls)))
        try:
            while running or (waiting and not failed):
                while waiting and len(running) < jobs and not failed:
                    number = waiting.pop(0)
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxadmm-budget-")))
                    running[number] = start(_MODULE, (dict(calls[number]), shared.resolve()), folder), folder
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for number, (process, folder) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[number]
                    if process.returncode == 0:
                        on_done(number)
                    else:
                        thing = "the process of a budget"
                        failed[number] = error_of(folder, process.returncode, thing=thing, way_out=_WAY_OUT)
        finally:
            # Whatever ends this ends them as well; each leaves a checkpoint, as a run that is interrupted does.
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    if failed:
        raise failed[min(failed)]


def _compress(order: tuple[Mapping[str, Any], Path]) -> None:
    call, path = order
    shared = Shared()
    if path.exists():
        shared.read(path)
    compress(**call, shared=shared)


def main(folder: Path) -> int:
    """Follow the order in a folder; return the exit status."""
    return follow(folder, _compress)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
