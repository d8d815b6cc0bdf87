"""From what was seen of a run to what all of it takes, where it shall take place and in the hours that there are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from onnxadmm.errors import BudgetError
from onnxadmm.estimate.measure import Seen
from onnxadmm.estimate.question import Question
from onnxadmm.estimate.rates import Reading, details_of
from onnxadmm.estimate.record import Estimate, StageEstimate
from onnxadmm.estimate.scaling import Hands, Machines, StepParts
from onnxadmm.report.words import duration, plural, size_in_bytes, times
from onnxadmm.run.command import command_line
from onnxadmm.run.forecast import GIVEN_OUT, Paces, forecast_of, least, longest, shortest
from onnxadmm.run.recipe import Recipe
from onnxadmm.run.rehearsal import Pace
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.gallery import Pictures
from onnxadmm.train.data.storage import is_mapped
from onnxadmm.train.evaluate import LEAST_PART

#: Stages that the report of a run does not have, or that no training is: the cut, and what is written in the end.
_CUT: Final = "shrink and verify"
_WRITE: Final = "write"
_CHOOSING: Final = ("prune", "refit", "calibrate")
#: Memory of a process that shares a batch beside what it computes.
_PROCESS_BYTES: Final = 120_000_000


def answer(seen: Seen, question: Question) -> Estimate:
    """Return what a run takes.

    Raises:
        BudgetError: the hours are too few for the fewest epochs that a run has.
    """
    if seen.trained is None:
        return _of_calibration(seen, question)
    paces, reading = seen.trained
    return _Answer(seen, question, paces, reading).made()


def _of_calibration(seen: Seen, question: Question) -> Estimate:
    """What a calibration takes by its own figures."""
    forecast, size = seen.calibration, seen.run.model.file_bytes
    assert forecast is not None  # nothing is resumed
    # A teacher is there when the data have been read.
    memory = seen.peaks.get("read data", 0) + forecast.memory_bytes - seen.run.training.teacher_bytes
    stages = [
        StageEstimate(
            stage.name,
            stage.seconds,
            epochs=forecast.retrain_epochs if stage.name == "retrain" else 0,
            memory_bytes=memory if stage.name == "calibrate" else 0,
            disk_bytes=2 * size if stage.name in ("calibrate", "retrain") else 0,
        )
        for stage in forecast.stages
    ]
    return Estimate(
        _priced(seen, stages, question),
        command_line(
            replace(
                seen.run.choices,
                preprocessing=seen.preprocessing,
                recipe=replace(seen.run.choices.recipe, retrain_epochs=forecast.retrain_epochs),
            ),
            seen.run.ending.options,
        ),
        seen.samples,
        0,
        forecast.retrain_epochs,
        seen.run.training.steps_per_epoch,
        question.place.cores,
        question.machines,
        (),
        {},
    )


def _priced(seen: Seen, trained: list[StageEstimate], question: Question) -> tuple[StageEstimate, ...]:
    """All stages in their order, with memory and cost."""
    chosen = max(place for place, stage in enumerate(trained) if stage.name in _CHOOSING)
    cut = StageEstimate(_CUT, seen.ended.cut, memory_bytes=seen.ended.memory_bytes)
    written = StageEstimate(_WRITE, seen.ended.writing, disk_bytes=seen.ended.disk_bytes)
    return tuple(
        replace(
            stage,
            memory_bytes=stage.memory_bytes or seen.peaks.get(stage.name, 0),
            cost=question.cost(stage.seconds),
        )
        for stage in (*seen.before, *trained[: chosen + 1], cut, *trained[chosen + 1 :], written)
    )


@dataclass(frozen=True)
class _Answer:
    """One answer about a run that trains."""

    seen: Seen
    question: Question
    paces: Paces
    reading: Reading

    def made(self) -> Estimate:
        seen, question, place, paces = self.seen, self.question, self._place, self._moved()
        spent = sum(stage.seconds for stage in seen.before) + seen.ended.seconds
        recipe = self._fitted(paces, spent=spent)
        forecast = forecast_of(paces, recipe, file_bytes=seen.run.model.file_bytes)
        epochs = {"prune": (paces.prune, forecast.epochs), "retrain": (paces.retrain, forecast.retrain_epochs)}
        stages = []
        for stage in forecast.stages:
            pace, count = epochs.get(stage.name, (None, 0))
            told = StageEstimate(stage.name, stage.seconds, count)
            stages.append(told if pace is None else self._filled(told, pace))
        choices = replace(seen.run.choices, recipe=recipe, preprocessing=seen.preprocessing)
        steps = (forecast.epochs + forecast.retrain_epochs) * paces.steps_per_epoch
        traffic = place.traffic(details_of(paces.prune).weights_bytes)
        return Estimate(
            _priced(seen, stages, question),
            command_line(choices, seen.run.ending.options),
            seen.samples,
            forecast.epochs,
            forecast.retrain_epochs,
            paces.steps_per_epoch,
            place.cores,
            question.machines,
            tuple(self._workers(pace) for pace in self._trained.values()),
            self._rates(),
            math.ceil(steps / place.local_steps) * traffic,
            tuple(self._notes()) if question.is_elsewhere else (),
        )

    @property
    def _place(self) -> Machines:
        """Where the run shall take place."""
        return replace(self.question.place, local_steps=self.seen.run.choices.recipe.local_steps)

    @property
    def _trained(self) -> dict[str, Pace]:
        """The paces here, by what is done."""
        retrain = self.paces.retrain
        return {"pruning": self.paces.prune} | ({} if retrain is None else {"retraining": retrain})

    @property
    def _answered(self) -> bool:
        """Whether the teacher's answers are known in all epochs but the first."""
        training = self.seen.run.training
        return training.keeps and not training.preprocessing.augment

    def _workers(self, pace: Pace) -> int:
        """Processes of one machine that share a batch, or the machine's share of it, where the run shall take place."""
        details, recipe, place = details_of(pace), self.seen.run.choices.recipe, self._place
        if recipe.workers is not None or recipe.threads == 0:
            return details.workers
        here = place.cores == usable_cores()
        most = details.workers if here else min(place.cores // recipe.threads, details.most_workers)
        return max(1, min(most, details.most_workers // place.count))

    def _hands(self, pace: Pace) -> Hands:
        """Who takes a step on each machine, where the run shall take place."""
        return self._on(self._place.cores, self._workers(pace))

    def _hands_here(self, pace: Pace) -> Hands:
        return self._on(usable_cores(), details_of(pace).workers)

    def _on(self, cores: int, workers: int) -> Hands:
        recipe, count = self.seen.run.choices.recipe, self._place.count
        return Hands(cores, workers, max(1, min(recipe.beside(cores), recipe.batch_size // count // LEAST_PART)))

    def _accumulate(self, pace: Pace) -> int:
        """Parts that each of them computes one after the other, none larger than here."""
        parts = self.seen.run.choices.recipe.accumulate * details_of(pace).workers
        return math.ceil(parts / (self._workers(pace) * self._place.count))

    def _moved(self) -> Paces:
        """The paces where the run shall take place."""
        retrain = self.paces.retrain
        return replace(
            self.paces,
            prune=self._elsewhere(self.paces.prune),
            retrain=None if retrain is None else self._elsewhere(retrain.known),
        )

    def _elsewhere(self, pace: Pace) -> Pace:
        here, there = self._hands_here(pace), self._hands(pace)

        def step(measured: float, parts: StepParts) -> float:
            exchanged = details_of(pace).weights_bytes
            return self._place.step(measured, parts, here=here, there=there, exchanged=exchanged)

        later, first = self.reading.parts(pace, answered=self._answered), self.reading.parts(pace)
        measured = pace.first_step
        if measured is not None and self.question.samples is not None:
            # Samples that come again and again are known too soon.
            measured = max(measured, pace.step * first.seconds(here) / later.seconds(here))
        return replace(
            pace,
            step=step(pace.step, later),
            first_step=None if measured is None else step(measured, first),
            evaluation=pace.evaluation * here.beside / there.beside,
        )

    def _fitted(self, paces: Paces, *, spent: float) -> Recipe:
        """The recipe with the epochs that fit, named."""
        recipe, hours = self.seen.run.choices.recipe, self.question.hours
        found: Recipe | None = recipe
        if hours is not None:
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
            accumulate=self._accumulate(self.paces.prune),
            cluster="auto" if self._place.count > 1 else found.cluster,
        )

    def _filled(self, stage: StageEstimate, pace: Pace) -> StageEstimate:
        """A training with what it has of memory and disk."""
        details, workers = details_of(pace), self._workers(pace)
        accumulate = self.seen.run.choices.recipe.accumulate
        # Samples that are computed at the same time, in all processes, against those here.
        larger = accumulate / self._accumulate(pace)
        more = (larger - 1) * pace.memory_bytes + (workers - details.workers) * (_PROCESS_BYTES + details.weights_bytes)
        memory = details.peak_bytes + round(more) + self._absent_bytes() if details.peak_bytes else 0
        # While a checkpoint is replaced there are two of them.
        disk = 2 * (self.seen.run.model.file_bytes + pace.state_bytes)
        if self.seen.run.training.preprocessing.cache:
            disk += len(self.seen.run.training.samples) * self._answer_numbers * np.dtype(np.float16).itemsize
        return replace(stage, memory_bytes=max(0, memory), disk_bytes=disk)

    def _absent_bytes(self) -> int:
        """Bytes in memory of samples, and of answers to them, that are not here where some stand for others."""
        training = self.seen.run.training
        missing = len(training.samples) - len(np.unique(training.samples.order))
        stored = [
            array.nbytes / len(array)
            for array in training.samples.inputs.values()
            if not isinstance(array, Pictures) and not is_mapped(array)
        ]
        answers = 0 if training.preprocessing.cache else self._answer_numbers * np.dtype(np.float32).itemsize
        return round(missing * (sum(stored) + answers))

    @cached_property
    def _answer_numbers(self) -> int:
        """Numbers that the teacher says of a sample, where they are kept; 0 where they are not."""
        training = self.seen.run.training
        if not self._answered or training.teacher is None:
            return 0
        labelled = training.teacher.apart().label(training.first_batch()).teacher
        return 0 if labelled is None else labelled[0].size

    def _rates(self) -> dict[str, float]:
        training, size = self.seen.run.training, self.seen.run.training.recipe.batch_size
        rates = {
            "samples read": size / max(1e-9, self.reading.reading),
            "samples evaluated": len(training.glance) / max(1e-9, self.paces.prune.evaluation),
            **{f"samples trained while {name}": size / pace.step for name, pace in self._trained.items()},
        }
        if self.reading.teacher:
            rates["samples answered"] = size / self.reading.teacher
        return rates if self.seen.speed_up is None else {**rates, "speed-up of all cores": self.seen.speed_up}

    def _notes(self) -> Iterator[str]:
        place, question = self._place, self.question
        if self.seen.speed_up is not None:
            yield f"All cores here are {times(self.seen.speed_up)} as fast as one."
        yield (
            f"Extrapolated from {plural(usable_cores(), 'core')} to {plural(place.count, 'machine')} with "
            f"{plural(place.cores, 'core')}: each core as fast as one here while all of them work; proofs and "
            "everything else that one process does take as long as here."
        )
        for name, pace in self._trained.items():
            hands, parts = self._hands(pace), self.reading.parts(pace, answered=self._answered).shared(place.count)
            workers = hands.workers
            share = "1 process computes" if workers == 1 else f"{workers} processes share"
            yield f"While {name}, {share} each batch; what limits a step is {parts.limit(hands)}."
            if workers < place.cores:
                yield (
                    f"{place.cores - workers} of {place.cores} cores have no part of a batch while {name}: a larger "
                    "--batch-size has more parts."
                )
        if place.count > 1:
            weights = details_of(self.paces.prune).weights_bytes
            crossed, takes = size_in_bytes(place.traffic(weights)), duration(place.exchange(weights))
            yield (
                f"Machines agree on one network every {plural(place.local_steps, 'step')}: {crossed} over the link of "
                f"the one that steers, {takes} at {question.link_mbit:g} Mbit/s."
            )


def _rounded_up(hours: float) -> float:
    """Hours with two digits, not less than they are."""
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return math.ceil(hours / unit) * unit
