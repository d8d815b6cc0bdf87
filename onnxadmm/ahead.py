"""A run of ``compress`` before it begins: whether its budget is in reach, and whether one that is done is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from onnxadmm.compress import compress, found, source_of
from onnxadmm.console import listening
from onnxadmm.progress import SILENT, Progress, Silent
from onnxadmm.report.report import Report
from onnxadmm.run.checkpoint import options_as_text, refuse_other_data, refuse_other_model, refuse_other_options
from onnxadmm.run.choices import FREE_TO_CHANGE, Option
from onnxadmm.run.command import command_line
from onnxadmm.run.made_samples import is_none
from onnxadmm.run.shared import Shared
from onnxadmm.units.cost import CostKind

#: What is known by its contents, not by its path, under the names that a report has for either.
_BY_CONTENTS: Final = {"teacher": "teacher_sha256", "custom_ops": "custom_ops_sha256"}
#: What two runs of one sweep may differ in, beside their amount.
_FREE: Final = FREE_TO_CHANGE | {
    *("model", "data", "calibrate", "data_digest", "out", "expect_accuracy", *_BY_CONTENTS.values()),
}
#: What says nothing where nothing is timed.
_TIMING: Final = frozenset({"bench_batch", "bench_threads"})


@dataclass(frozen=True)
class Ahead:
    """A run as it is known before it begins.

    Attributes:
        command: what would make it.
        sha256: of the model.
        options: as its report would hold them; None where the data were not read.
    """

    command: str
    sha256: str
    options: Mapping[str, Option] | None

    def refuse_other(self, done: Report, folder: Path, *, kind: CostKind) -> None:
        """Refuse to take a run that is done for one of this model, these data and options.

        Args:
            folder: where it stands.
            kind: the budget in which they differ.

        Raises:
            CheckpointError: what differs, by name.
        """
        assert self.options is not None, "what is compared has its data read"
        refuse_other_model(done.before.model.sha256, self.sha256, like=str(folder))
        names = self.options.keys() - _FREE - {kind}
        names -= _TIMING if self.options["bench"] is False else set()
        before, now = (_compared(each, names) for each in (done.options, self.options))
        refuse_other_options(before, now, like=str(folder))
        if (digest := done.options.get("data_digest")) is not None:  # reports of earlier versions do not say it
            refuse_other_data(str(digest), str(self.options["data_digest"]), like=str(folder))


def look_ahead(call: Mapping[str, Any], *, shared: Shared, reads: bool) -> Ahead:
    """Do what a run does before anything takes long, and nothing else.

    Args:
        call: the arguments of ``compress``.
        shared: keeps the data, where they are read, for the runs that follow.
        reads: whether the data are read; they are also where the budget cannot be told without them.

    Raises:
        OnnxAdmmError: whatever ``compress`` raises of the model, the options and the budget.
    """
    given = signature(compress).bind(**call)
    given.apply_defaults()
    with listening(call.get("progress", SILENT)) as told:
        asked = SimpleNamespace(**{**given.arguments, "progress": _Stages(told), "resume": False, "shared": shared})
        with found(asked, writes=False) as (run, _):
            if reads or run.waits_for_data or is_none(asked.calibrate):
                run.crew = None  # the machines are told of the data by the first run
                run.read(source_of(asked, run), asked.test)
            command = command_line(run.choices, run.ending.options)
            return Ahead(command, run.model.sha256, run.options() if reads else None)


class _Stages(Silent):
    """Tells of stages alone: what is to be read the run itself says once more."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, name: str, *, total: int | None = None) -> None:
        self._progress.stage(name, total=total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)


def _compared(options: Mapping[str, Option], names: set[str]) -> dict[str, str]:
    return options_as_text({name: options.get(_BY_CONTENTS.get(name, name)) for name in names})
