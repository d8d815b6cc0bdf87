"""The public ``estimate``: what a run of ``compress`` would take, measured in a child process."""

import inspect
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from onnxadmm.apart import error_of, refuse_unsendable, start
from onnxadmm.compress import compress
from onnxadmm.console import listening
from onnxadmm.estimate.child import RESULT
from onnxadmm.estimate.question import Question, refuse_others
from onnxadmm.estimate.record import Estimate
from onnxadmm.graph.model import Model, to_proto
from onnxadmm.progress import SILENT, Progress, ProgressLike
from onnxadmm.report.codec import decode
from onnxadmm.surgery import Source

_MODULE: Final = "onnxadmm.estimate.child"
#: Where the command writes to that is named, unless another folder is given.
_OUT: Final = "out"
#: Arguments of ``compress`` that only a run has.
_OF_RUNS: Final = ("shared", "options")
_WAY_OUT: Final = "give fewer data, or a smaller --batch-size"


def estimate(
    model: Source,
    *,
    hours: float | None = None,
    cores: int | None = None,
    machines: int = 1,
    samples: int | None = None,
    price_per_core_hour: float | None = None,
    link_mbit: float = Question.link_mbit,
    progress: ProgressLike = SILENT,
    **options: Any,
) -> Estimate:
    """Return what ``compress`` would take with the same arguments: hours, memory, disk and cost by stage.

    In a process of its own all of that run is done that comes before its trainings, some steps of both trainings at
    their real sizes, and once the cut, its proof and what is written. The process ends with all its files.

    Args:
        model: path or model.
        hours: that the run may take: the epochs of both trainings are shortened alike until it fits, with a tenth of
            the time to spare; None: it takes as long as it takes.
        cores: of each machine; None: those of this one. What others would take is extrapolated, and said to be.
        machines: that each train on their share of the data and agree on one network now and then.
        samples: that those of the data stand for, held-out ones included; None: themselves. Some hundreds of images
            tell of a million.
        price_per_core_hour: of one core for an hour; None: costs are not told.
        link_mbit: megabits a second between machines, in either direction.
        progress: told what happens, as for ``compress``.
        options: whatever else ``compress`` takes, but for ``resume``, ``max_minutes`` and ``quick``; data must be
            paths, arrays or what can be pickled.

    Returns:
        All stages with what they take, and the command line that is meant.

    Raises:
        BudgetError: ``hours`` are too few for the least number of epochs; what these need is said.
        OptionError: a number is out of range, or another process cannot be handed the data.
        InputError, NothingToPruneError: as ``compress`` does before it trains.
        DivergedError: the loss is not finite from the start.

    Examples:
        ```python
        recipe = oa.Recipe(distillation=1, epochs=2, retrain_epochs=3, batch_size=32)  # no labels
        found = oa.estimate("model.onnx", data=images, budget={"macs": 0.5}, recipe=recipe, hours=1, bench=False)
        print([(stage.name, stage.seconds) for stage in found.stages], found.command)
        ```
    """
    question = Question(hours, cores, machines, samples, price_per_core_hour, link_mbit)
    given = inspect.signature(compress).bind(model, **options)
    given.apply_defaults()
    call = {name: value for name, value in given.arguments.items() if name not in ("progress", *_OF_RUNS)}
    call |= {"shared": None, "options": None, "out": call["out"] or _OUT}
    for name in ("model", "teacher"):
        if isinstance(call[name], Model):
            call[name] = to_proto(call[name])
    refuse_others(call)
    call = question.of_training(call)
    refuse_unsendable(call, thing="the arguments", way_out="give these; a DataLoader's samples as arrays")
    with listening(progress) as told_to:
        return _asked(call, question, told_to)


def _asked(call: dict[str, Any], question: Question, progress: Progress) -> Estimate:
    """Let a child process answer, and tell what it tells."""
    with tempfile.TemporaryDirectory(prefix="onnxadmm-estimate-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        process = start(_MODULE, (call, question, time.time()), folder, answers=True, temporary=folder)
        try:
            assert process.stdout is not None  # it was asked for
            for line in process.stdout:
                _tell(line, progress)
            status = process.wait()
        finally:
            # All its files are in the folder, and its processes end with it.
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if status != 0:
            raise error_of(folder, status, thing="the process that measures", way_out=_WAY_OUT)
        document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return decode(Estimate, document)


def _tell(line: bytes, progress: Progress) -> None:
    with suppress(ValueError):
        told = json.loads(line)
        if "stage" in told:
            progress.stage(told["stage"], total=None)
        else:
            progress.note(told["note"])
