"""Budgets of a sweep on the machines of a cluster: each makes one at a time, and sends back the files of its result."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxadmm.cluster.actors import RayCrew
from onnxadmm.cluster.errands import Errands
from onnxadmm.compress import compress
from onnxadmm.output import OutputFolder, names_of_results
from onnxadmm.run.shared import Shared

#: The files of a result, by name.
Files = dict[str, bytes]


@dataclass(frozen=True)
class Bench:
    """What a machine needs in order to make budgets of a model.

    Attributes:
        shared: what they go on from, without what only its process can have.
    """

    shared: Shared

    def open(self) -> "Maker":
        return Maker(self.shared)


class Maker:
    """Makes budgets on a machine, one after the other; they read the data once."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def begin(self, task: Mapping[str, Any]) -> None:
        """Have the arguments of ``compress`` that all budgets have in common."""
        self._common = task

    def take(self, order: Mapping[str, Any]) -> Files:
        """Make a budget, with the other arguments."""
        shared = replace(self._shared)
        with tempfile.TemporaryDirectory(prefix="onnxadmm-budget-") as folder:
            out = Path(folder) / "out"
            compress(**{**self._common, **order}, out=out, shared=shared)
            self._shared.reading = shared.reading
            return {name: (out / name).read_bytes() for name in names_of_results(out)}

    def end(self) -> None: ...


def compress_elsewhere(
    crew: RayCrew,
    calls: Sequence[Mapping[str, Any]],
    *,
    shared: Shared,
    on_done: Callable[[int], None],
    tell: Callable[[str], None],
) -> None:
    """Call ``compress`` on machines, and wait until all calls have ended.

    Args:
        crew: the machines.
        calls: arguments of each by name, which differ in the budget and where it is written alone.
        shared: what they go on from; they leave it as it is.
        on_done: told the number of a call, from 0, whose result is in its folder.
        tell: told a sentence when a machine is lost.

    Raises:
        OnnxAdmmError: the first of the calls, in their order, that failed; those that ran beside it came to their end.
    """
    for call in calls:  # an old result is found before anything takes long
        with _folder(call):
            pass

    def put(number: int, files: Files) -> None:
        with _folder(calls[number]) as folder:
            folder.begin()
            for name, content in files.items():
                (folder.work / name).write_bytes(content)
            folder.publish()
        on_done(number)

    crew.settle(Bench(replace(shared, reading=None, crew=None)))
    own = ("budget", "out", "force", "resume")
    common = {name: value for call in calls[:1] for name, value in call.items() if name not in own}
    # A report names the folder that its files are in, not that in which a machine has made them.
    told = [{**(call.get("options") or {}), "out": str(call["out"])} for call in calls]
    orders = [{"budget": call["budget"], "options": named} for call, named in zip(calls, told, strict=True)]
    Errands(crew, orders, put, tell).run(common)


def _folder(call: Mapping[str, Any]) -> OutputFolder:
    """Where a call writes; what an interrupted run has left there goes as soon as the result comes."""
    inputs = (call["model"], call.get("calibrate"), call.get("test"), call.get("teacher"))
    return OutputFolder(call["out"], force=call["force"], resume=call["resume"], inputs=inputs)
