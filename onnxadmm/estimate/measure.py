"""What an estimate is made of, seen by doing all of a run that comes before its trainings and some steps of these."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from onnxadmm.compress import begun
from onnxadmm.errors import OptionError
from onnxadmm.estimate.ending import Ended, end_once
from onnxadmm.estimate.question import Question
from onnxadmm.estimate.rates import Reading, reading_of, speed_up
from onnxadmm.estimate.record import StageEstimate
from onnxadmm.plan.given import given_or_usual
from onnxadmm.progress import Iteration, Progress
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.behind import guessed_units
from onnxadmm.run.forecast import STAGE, Forecast, Paces, measured_paces
from onnxadmm.run.recipe import Preprocessing
from onnxadmm.run.steps import Compression
from onnxadmm.runtime.resident import Gauge
from onnxadmm.train.data.batches import held_out_count

#: The stage before all others: until Python has imported what it needs.
START: Final = "start"
_READ: Final = "read data"
_CACHE: Final = "cache"


@dataclass(frozen=True)
class Seen:
    """What was seen of a run.

    Attributes:
        run: as it stands before its trainings.
        preprocessing: as it was given, with the folder that keeps decoded pictures.
        samples: that there are, or that these stand for.
        before: the stages before the trainings.
        trained: paces of both trainings, and what a batch takes to be read; None where a calibration chooses.
        calibration: what a calibration expects of itself; None where none is made.
        ended: what the end takes.
        speed_up: of all cores here over one; None where nobody asked.
        peaks: memory by stage, in bytes.
    """

    run: Compression
    preprocessing: Preprocessing
    samples: int
    before: tuple[StageEstimate, ...]
    trained: tuple[Paces, Reading] | None
    calibration: Forecast | None
    ended: Ended
    speed_up: float | None
    peaks: Mapping[str, int]


class Watched:
    """Tells on what a run tells, and looks at the memory of each of its stages.

    Attributes:
        peaks: bytes by stage.
    """

    def __init__(self, tell: Progress, gauge: Gauge) -> None:
        self.peaks: dict[str, int] = {}
        self._tell, self._gauge, self._running = tell, gauge, START
        self._gauge.reset()

    def stage(self, name: str, *, total: int | None = None) -> None:
        self.peaks[self._running] = self._gauge.peak()
        self._running = name
        self._gauge.reset()
        self._tell.stage(name, total=total)

    def advance(self, steps: int = 1) -> None:
        self._tell.advance(steps)

    def iteration(self, row: Iteration) -> None:
        self._tell.iteration(row)

    def note(self, text: str) -> None:
        self._tell.note(text)


@contextmanager
def seen(
    call: Mapping[str, Any], question: Question, *, folder: Path, tell: Progress, started: float
) -> Iterator[Seen]:
    """Begin a run, and look at it.

    Args:
        call: all arguments of ``compress`` by name.
        folder: for files that are gone afterwards.
        tell: told what happens.
        started: seconds that it took until this could be called.

    Yields:
        What was seen, while the run's custom operators are there.

    Raises:
        OptionError: fewer samples are to be stood for than there are.
        OnnxAdmmError: whatever ``compress`` raises before it trains.
    """
    gauge = Gauge()
    watched = Watched(tell, gauge)
    given = given_or_usual(Preprocessing, call["preprocessing"], "the preprocessing", "Preprocessing(mean=[0.13])")
    # Decoded pictures are kept for the steps that are taken here, and not in the folder of the run.
    moved = given if given.cache is None else replace(given, cache=str(folder / _CACHE))
    asked = SimpleNamespace(**{**call, "preprocessing": moved, "progress": watched})
    with begun(asked, writes=False, count=question.samples) as (run, _):
        there = len(run.training.samples) + len(run.training.held_out)
        before = [StageEstimate(START, started), *_before(run, question.samples or there, there, folder)]
        trained, calibration, faster = None, None, None
        if run.choices.calibrates:
            calibration = run.foresee()
            keep = guessed_units(run.ready, run.units, run.problem)
        else:
            _stand_for(run, question.samples, there)
            with run.journal.stage(STAGE):
                paces = measured_paces(run.training, run.ready, run.units, run.problem, ending=run.ending, gauge=gauge)
            assert paces.keep is not None  # it was measured
            keep, trained = paces.keep, (paces, reading_of(run.training))
            if question.is_elsewhere:
                faster = speed_up(run.training, open_gates(run.ready, run.units), paces.prune)
        before.append(StageEstimate(STAGE, run.journal.seconds()[STAGE]))
        gauge.reset()
        ended = replace(end_once(run, keep, folder), memory_bytes=gauge.peak())
        peaks = {**watched.peaks, STAGE: 0}
        samples = question.samples or there
        yield Seen(run, given, samples, tuple(before), trained, calibration, ended, faster, peaks)


def _before(run: Compression, samples: int, there: int, folder: Path) -> Iterator[StageEstimate]:
    """The stages so far; reading takes as long as it would for all samples.

    Args:
        samples: that those that are ``there`` stand for.
        folder: with the cache of decoded pictures.
    """
    reading, factor = run.shared.reading, samples / there
    looking = 0.0 if reading is None else reading.looking
    for stage in run.journal.stages:
        seconds, disk = stage.seconds, 0
        if stage.name == _READ:
            held = _held_out(run, samples) / max(1, len(run.training.held_out))
            seconds += run.journal.loaded * (factor - 1) + looking * max(0.0, held - 1)
            files = (folder / _CACHE).rglob("*")
            disk = round(factor * sum(path.stat().st_size for path in files if path.is_file()))
        yield StageEstimate(stage.name, seconds, disk_bytes=disk)


def _held_out(run: Compression, samples: int) -> int:
    by_content = run.training.samples.contents is not None
    return held_out_count(samples, share=run.choices.recipe.held_out, by_content=by_content)


def _stand_for(run: Compression, samples: int | None, there: int) -> None:
    """Let the samples that there are stand for others.

    Raises:
        OptionError: for fewer.
    """
    if samples is None:
        return
    if samples < there:
        raise OptionError(
            "--samples",
            expected=f"at least the {there:,} that there are",
            found=f"{samples:,}",
            way_out="give fewer data, or a larger number",
        )
    held, held_out = _held_out(run, samples), run.training.held_out
    whole = held_out.take(np.resize(np.arange(len(held_out)), held))
    run.training = run.training.repeated(run.training.samples, samples - held, held_out=whole)
