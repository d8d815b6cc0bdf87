"""An estimate of a run, made by doing all of it that comes before its trainings and some steps of these."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from onnxadmm.compress import begun
from onnxadmm.errors import BudgetError, OptionError
from onnxadmm.estimate.ending import Ended, end_once
from onnxadmm.estimate.question import Question
from onnxadmm.estimate.rates import Reading, reading_of, speed_up
from onnxadmm.estimate.record import Estimate, StageEstimate
from onnxadmm.estimate.scaling import LOCAL_STEPS, StepParts
from onnxadmm.plan.given import given_or_usual
from onnxadmm.progress import Iteration, Progress
from onnxadmm.report.words import duration, plural, size_in_bytes, times
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.behind import guessed_units
from onnxadmm.run.command import command_line
from onnxadmm.run.forecast import (
    GIVEN_OUT,
    STAGE,
    Paces,
    forecast_of,
    least,
    longest,
    measured_paces,
    shortest,
)
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.rehearsal import Details, Pace
from onnxadmm.run.steps import Compression
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.runtime.resident import Gauge
from onnxadmm.train.data.batches import held_out_count
from onnxadmm.train.data.gallery import Pictures
from onnxadmm.train.data.storage import is_mapped

#: Stages that estimates know beside those of a run.
START: Final = "start"
WRITE: Final = "write"
_CUT: Final = "shrink and verify"
_READ: Final = "read data"
#: Memory of a process that shares a batch beside what it computes.
_PROCESS_BYTES: Final = 120_000_000
_CACHE: Final = "cache"


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


def estimated(call: Mapping[str, Any], question: Question, *, folder: Path, tell: Progress, started: float) -> Estimate:
    """Return what a run takes.

    Args:
        call: all arguments of ``compress`` by name.
        folder: for files that are gone afterwards.
        tell: told what happens.
        started: seconds that it took until this could be called.

    Raises:
        BudgetError: the hours are too few for the fewest epochs that a run has.
        OptionError: fewer samples are to be stood for than there are.
        OnnxAdmmError: whatever ``compress`` raises before it trains.
    """
    gauge = Gauge()
    watched = Watched(tell, gauge)
    kept = given_or_usual(Preprocessing, call["preprocessing"], "the preprocessing", "Preprocessing(mean=[0.13])")
    # Decoded pictures are kept for the steps that are taken here, and not in the folder of the run.
    moved = kept if kept.cache is None else replace(kept, cache=str(folder / _CACHE))
    asked = SimpleNamespace(**{**call, "preprocessing": moved, "progress": watched})
    with begun(asked, writes=False, count=question.samples) as (run, _):
        return _Estimating(run, question, gauge, watched, folder, kept).answer(started)


@dataclass(frozen=True)
class _Estimating:
    run: Compression
    question: Question
    gauge: Gauge
    watched: Watched
    folder: Path
    preprocessing: Preprocessing

    def answer(self, started: float) -> Estimate:
        run = self.run
        there = len(run.training.samples) + len(run.training.held_out)
        before = [StageEstimate(START, started), *self._before(there)]
        if run.choices.calibrates:
            return self._of_calibration(before, there)
        count = self._stand_for(there)
        with run.journal.stage(STAGE):
            paces = measured_paces(run.training, run.ready, run.units, run.problem, ending=run.ending, gauge=self.gauge)
        before.append(StageEstimate(STAGE, run.journal.seconds()[STAGE]))
        reading = reading_of(run.training)
        ended = self._ended(paces.keep)
        there_paces, notes = self._elsewhere(paces, reading)
        rates = self._rates(paces, reading)
        recipe = self._fitted(there_paces, spent=sum(stage.seconds for stage in before) + ended.seconds)
        forecast = forecast_of(there_paces, recipe, file_bytes=run.model.file_bytes)
        later = [StageEstimate(stage.name, stage.seconds) for stage in forecast.stages]
        stages = [
            *before,
            *(self._trained(stage, there_paces, forecast.epochs, forecast.retrain_epochs) for stage in later),
        ]
        workers = tuple(self._workers(pace) for pace in (paces.prune, paces.retrain) if pace is not None)
        steps = (forecast.epochs + forecast.retrain_epochs) * paces.steps_per_epoch
        rounds = math.ceil(steps / LOCAL_STEPS / self.question.machines)
        return self._record(
            stages,
            ended,
            recipe,
            samples=count,
            epochs=(forecast.epochs, forecast.retrain_epochs),
            batches=paces.steps_per_epoch,
            workers=workers,
            rates=rates,
            traffic=rounds * self.question.place.traffic(_details(paces.prune).weights_bytes),
            notes=notes,
        )

    def _of_calibration(self, before: list[StageEstimate], samples: int) -> Estimate:
        """What a calibration takes by its own figures."""
        run = self.run
        forecast = run.foresee()
        assert forecast is not None  # nothing is resumed
        before.append(StageEstimate(STAGE, run.journal.seconds()[STAGE]))
        base = self.watched.peaks.get(_READ, 0)
        stages = [
            StageEstimate(
                stage.name,
                stage.seconds,
                epochs=forecast.retrain_epochs if stage.name == "retrain" else 0,
                memory_bytes=base + forecast.memory_bytes if number == 0 else 0,
                disk_bytes=2 * run.model.file_bytes if stage.name in ("calibrate", "retrain") else 0,
            )
            for number, stage in enumerate(forecast.stages)
        ]
        ended = self._ended(guessed_units(run.ready, run.units, run.problem))
        notes = ("A calibration is told by the machine that measured: other cores are not extrapolated.",)
        return self._record(
            [*before, *stages],
            ended,
            run.choices.recipe,
            samples=samples,
            epochs=(0, forecast.retrain_epochs),
            batches=run.training.steps_per_epoch,
            workers=(),
            rates={},
            traffic=0,
            notes=notes,
        )

    def _before(self, there: int) -> Iterator[StageEstimate]:
        """The stages so far, reading as long as for all samples."""
        reading = self.run.shared.reading
        looking = 0.0 if reading is None else reading.looking
        factor = (self.question.samples or there) / there
        for stage in self.run.journal.stages:
            seconds = stage.seconds
            if stage.name == _READ:
                held = self._held(self.question.samples or there) / max(1, len(self.run.training.held_out))
                seconds = (seconds - looking) * factor + looking * max(1.0, held)
            yield StageEstimate(stage.name, seconds, disk_bytes=self._cached(factor, stage.name))

    def _cached(self, factor: float, stage: str) -> int:
        """Bytes of the cache of decoded pictures, which belongs to reading."""
        if self.preprocessing.cache is None or stage != _READ:
            return 0
        files = (self.folder / _CACHE).rglob("*")
        return round(factor * sum(path.stat().st_size for path in files if path.is_file()))

    def _held(self, count: int) -> int:
        """Held-out samples of so many."""
        training = self.run.training
        by_content = training.samples.contents is not None
        return held_out_count(count, share=training.recipe.held_out, by_content=by_content)

    def _stand_for(self, there: int) -> int:
        """Let the samples stand for as many as are asked for; return how many there are then."""
        count, run = self.question.samples, self.run
        if count is None:
            return there
        if count < there:
            raise OptionError(
                "--samples",
                expected=f"at least the {there:,} that there are",
                found=f"{count:,}",
                way_out="give fewer data, or a larger number",
            )
        held = self._held(count)
        held_out = run.training.held_out
        whole = held_out.take(np.resize(np.arange(len(held_out)), held))
        run.training = run.training.repeated(run.training.samples, count - held, held_out=whole)
        return count

    def _ended(self, keep: Any) -> Ended:
        self.gauge.reset()
        ended = end_once(self.run, keep, self.folder)
        return replace(ended, memory_bytes=self.gauge.peak())

    def _workers(self, pace: Pace) -> int:
        """Processes that share a batch where the run shall take place."""
        details, recipe, cores = _details(pace), self.run.choices.recipe, self.question.place.cores
        if cores == usable_cores() or recipe.workers is not None or recipe.threads == 0:
            return details.workers
        return max(1, min(cores // recipe.threads, details.most_workers))

    def _elsewhere(self, paces: Paces, reading: Reading) -> tuple[Paces, tuple[str, ...]]:
        """The paces where the run shall take place, and what is to be said of that."""
        place, training = self.question.place, self.run.training
        answered = training.keeps and not training.preprocessing.augment

        def moved(pace: Pace, *, known: bool) -> Pace:
            workers, here = self._workers(pace), (usable_cores(), _details(pace).workers)
            weights = _details(pace).weights_bytes

            def step(measured: float, parts: StepParts) -> float:
                return place.step(measured, parts, here=here, workers=workers, exchanged=weights)

            later, first = reading.parts(pace, answered=answered), reading.parts(pace)
            measured = pace.first_step
            if measured is not None and self.question.samples is not None:
                # Samples that come again and again are known too soon.
                measured = max(measured, pace.step * first.seconds(*here) / later.seconds(*here))
            return replace(
                pace,
                step=step(pace.step, later),
                first_step=None if known or measured is None else step(measured, first),
            )

        prune = moved(paces.prune, known=False)
        retrain = None if paces.retrain is None else moved(paces.retrain, known=True)
        found = replace(paces, prune=prune, retrain=retrain)
        return found, tuple(self._notes(paces, reading, answered=answered)) if self.question.is_elsewhere else ()

    def _notes(self, paces: Paces, reading: Reading, *, answered: bool) -> Iterator[str]:
        place, here = self.question.place, usable_cores()
        trained = {"pruning": paces.prune} | ({} if paces.retrain is None else {"retraining": paces.retrain})
        yield (
            f"Extrapolated from {plural(here, 'core')} to {plural(place.count, 'machine')} with "
            f"{plural(place.cores, 'core')}: each core as fast as one here while all of them work; looks at held-out "
            "data, proofs and everything else that one process does take as long as here."
        )
        for name, pace in trained.items():
            workers, parts = self._workers(pace), reading.parts(pace, answered=answered)
            share = "1 process computes" if workers == 1 else f"{workers} processes share"
            yield f"While {name}, {share} each batch; what limits a step is {parts.limit(place.cores, workers)}."
            if workers < place.cores:
                yield (
                    f"{place.cores - workers} of {place.cores} cores have no part of a batch while {name}: a larger "
                    "--batch-size has more parts."
                )
        if place.count > 1:
            weights = _details(paces.prune).weights_bytes
            crossed, takes = size_in_bytes(place.traffic(weights)), duration(place.exchange(weights))
            yield (
                f"Machines agree on one network every {LOCAL_STEPS} steps: {crossed} over the link of the one that "
                f"steers, {takes} at {self.question.link_mbit:g} Mbit/s."
            )

    def _rates(self, paces: Paces, reading: Reading) -> dict[str, float]:
        training, size = self.run.training, self.run.training.recipe.batch_size
        rates = {
            "images read": size / max(1e-9, reading.reading),
            "images evaluated": len(training.glance) / max(1e-9, paces.prune.evaluation),
            "images trained while pruning": size / paces.prune.step,
        }
        if paces.retrain is not None:
            rates["images trained while retraining"] = size / paces.retrain.step
        if self.question.is_elsewhere:
            whole = open_gates(self.run.ready, self.run.units)
            rates["speed-up of all cores"] = speed_up(training, whole, paces.prune)
        return rates

    def _fitted(self, paces: Paces, *, spent: float) -> Recipe:
        """The recipe with the epochs that fit, named."""
        recipe, hours = self.run.choices.recipe, self.question.hours
        if hours is None:
            found: Recipe | None = recipe
        else:
            found = longest(paces, recipe, seconds=GIVEN_OUT * 3600 * hours - spent)
        if found is None:
            fewest = shortest(paces, recipe)
            needed = spent + paces.seconds(fewest)
            raise BudgetError(
                f"--hours {hours:g}",
                expected=f"time for {least(fewest)}, which is the least",
                found=f"about {duration(needed)} that these would take",
                way_out=f"allow {_rounded_up(needed / 3600 / GIVEN_OUT):g} hours, more --cores or --machines, or give "
                "fewer samples",
            )
        length = paces.steps_per_epoch
        return replace(
            found,
            epochs=found.settings(steps_per_epoch=length).epochs,
            retrain_epochs=found.retraining_epochs(steps_per_epoch=length),
        )

    def _trained(self, stage: StageEstimate, paces: Paces, epochs: int, again: int) -> StageEstimate:
        """A stage with what it has of memory and disk, where it trains."""
        pace = {"prune": paces.prune, "retrain": paces.retrain}.get(stage.name)
        if pace is None:
            return stage
        details, training = _details(pace), self.run.training
        more = (self._workers(pace) - details.workers) * (_PROCESS_BYTES + details.weights_bytes)
        memory = details.peak_bytes + more + self._kept_in_memory() if details.peak_bytes else 0
        return replace(
            stage,
            epochs=epochs if stage.name == "prune" else again,
            memory_bytes=max(0, memory),
            # While a checkpoint is replaced there are two of them.
            disk_bytes=2 * (self.run.model.file_bytes + pace.state_bytes) if training else 0,
        )

    def _kept_in_memory(self) -> int:
        """Bytes of samples, and of the teacher's answers to them, that are not here where some stand for others."""
        training = self.run.training
        missing = len(training.samples) - len(np.unique(training.samples.order))
        stored = [
            array.nbytes / len(array)
            for array in training.samples.inputs.values()
            if not isinstance(array, Pictures) and not is_mapped(array)
        ]
        answers = 0.0
        if training.keeps and not training.preprocessing.augment and training.teacher is not None:
            labelled = training.teacher.apart().label(training.first_batch()).teacher
            answers = 0.0 if labelled is None else labelled.nbytes / len(labelled)
        return round(missing * (sum(stored) + answers))

    def _record(
        self,
        stages: list[StageEstimate],
        ended: Ended,
        recipe: Recipe,
        *,
        samples: int,
        epochs: tuple[int, int],
        batches: int,
        workers: tuple[int, ...],
        rates: Mapping[str, float],
        traffic: int,
        notes: tuple[str, ...],
    ) -> Estimate:
        run, question = self.run, self.question
        names = [stage.name for stage in stages]
        chosen = max(place for place, name in enumerate(names) if name in ("prune", "refit", "calibrate"))
        stages.insert(chosen + 1, StageEstimate(_CUT, ended.cut, memory_bytes=ended.memory_bytes))
        stages.append(StageEstimate(WRITE, ended.writing, disk_bytes=ended.disk_bytes))
        choices = replace(run.choices, recipe=recipe, preprocessing=self.preprocessing)
        if "speed-up of all cores" in rates:
            notes = (f"All cores here are {times(rates['speed-up of all cores'])} as fast as one.", *notes)
        peaks = {**self.watched.peaks, STAGE: 0}
        return Estimate(
            tuple(
                replace(
                    stage,
                    memory_bytes=stage.memory_bytes or peaks.get(stage.name, 0),
                    cost=question.cost(stage.seconds),
                )
                for stage in stages
            ),
            command_line(choices, run.ending.options),
            samples,
            *epochs,
            batches,
            question.place.cores,
            question.machines,
            workers,
            rates,
            traffic,
            notes,
        )


def _details(pace: Pace) -> Details:
    assert pace.details is not None  # it was measured with a gauge
    return pace.details


def _rounded_up(hours: float) -> float:
    """Hours with two digits, not less than they are."""
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return math.ceil(hours / unit) * unit
