"""The process that measures: ``python -m onnxadmm.estimate.child FOLDER``, with the order of ``estimate`` in it.

It prints what happens, a line of JSON each, and writes the estimate into the folder.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from onnxadmm.apart import follow
from onnxadmm.estimate.answer import answer
from onnxadmm.estimate.measure import seen
from onnxadmm.estimate.question import Question
from onnxadmm.progress import Silent
from onnxadmm.report.codec import dumps, encode

#: Where the estimate is.
RESULT: Final = "estimate.json"


class _Printed(Silent):
    """Prints stages and notes."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")

    def stage(self, name: str, *, total: int | None = None) -> None:
        self._print({"stage": name})

    def note(self, text: str) -> None:
        self._print({"note": text})

    def _print(self, told: Mapping[str, str]) -> None:
        self._file.write(f"{json.dumps(told)}\n")
        self._file.flush()


def main(folder: Path) -> int:
    """Follow the order in a folder; return the exit status."""
    # What is told has a descriptor of its own: whatever else is printed must not be taken for it.
    printed = _Printed(os.dup(1))
    os.dup2(2, 1)

    def work(order: tuple[Mapping[str, Any], Question, float]) -> None:
        call, question, began = order
        started = max(0.0, time.time() - began)
        with seen(call, question, folder=folder, tell=printed, started=started) as found:
            (folder / RESULT).write_text(dumps(encode(answer(found, question))), encoding="utf-8")

    return follow(folder, work)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
