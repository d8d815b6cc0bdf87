"""The end of a run, once: cut, proven, and written with its report into a folder that is gone afterwards."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from onnxadmm.admm.problem import KeepArray
from onnxadmm.graph.model import load, save
from onnxadmm.output import MODEL_NAME, PLAN_NAME
from onnxadmm.plan.plan import make_plan
from onnxadmm.progress import SILENT
from onnxadmm.report.writer import write_report, write_text
from onnxadmm.run.journal import Journal
from onnxadmm.run.measure import Outcome, Quality, make_report
from onnxadmm.run.proving import cut_and_proven
from onnxadmm.run.steps import Compression
from onnxadmm.run.trainings import Pruned


@dataclass(frozen=True)
class Ended:
    """What the end of a run takes.

    Attributes:
        cut: seconds of the cut and its proof.
        writing: seconds of the report and of all files.
        disk_bytes: of these files.
        memory_bytes: 0 where nobody looked.
    """

    cut: float
    writing: float
    disk_bytes: int
    memory_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.cut + self.writing


def end_once(run: Compression, keep: KeepArray, folder: Path) -> Ended:
    """Cut a network as training would leave it, prove that, and write what a run writes.

    Args:
        keep: units that stay, bool ``[units.count]``.
        folder: for the files.

    Raises:
        VerificationError: the proof fails.
    """
    begin = time.perf_counter()
    choices, training = run.choices, run.training
    inputs = {**choices.inputs, **training.samples.held}
    small, proof = cut_and_proven(
        run.ready,
        run.units,
        Pruned(keep, {}, {}),
        replace(training, journal=Journal(SILENT)),
        given=run.model,
        seed=choices.seed,
        inputs=inputs,
    )
    cut = time.perf_counter()
    out = folder / "out"
    out.mkdir()
    save(small, out / MODEL_NAME, single_file=run.ending.single_file)
    outcome = Outcome(
        original=run.model,
        analysed=run.ready,
        result=load(out / MODEL_NAME),
        units=run.units,
        keep=keep,
        zeros={},
        budget=choices.budget,
        latency=run.latency,
        problem=run.problem,
        verification=proof,
    )
    report = make_report(
        outcome,
        held_out=Quality(None, None),
        test=Quality(None, None),
        command="",
        options={},
        seed=choices.seed,
        inputs=inputs,
        notes=(),
        warnings=(),
        history=(),
        stages=(),
        progress=SILENT,
        timing=None,
    )
    write_text(out / PLAN_NAME, make_plan(run.ready, run.units, keep).to_json())
    write_report(report, out)
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Ended(cut - begin, time.perf_counter() - cut, written)
