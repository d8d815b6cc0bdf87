"""The steps of a compression, in order."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.state import State
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.cluster.rounds import Rounds
from onnxadmm.errors import DivergedError, OutputError, VerificationError
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, load, save, to_proto
from onnxadmm.graph.stated import in_words, leaves_sizes_open, with_samples
from onnxadmm.int8.static import load_tools
from onnxadmm.interrupt import ending_on_sigterm
from onnxadmm.latency.cost import LatencyCost
from onnxadmm.output import FP16_NAME, HISTORY_NAME, INT8_NAME, MODEL_NAME, PLAN_NAME, OutputFolder
from onnxadmm.plan.plan import Plan, make_plan
from onnxadmm.plan.problem import describe_goal
from onnxadmm.report.findings import OUTPUT_ERROR
from onnxadmm.report.report import Report
from onnxadmm.report.writer import HistoryWriter, write_report, write_text
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.verify import Verification
from onnxadmm.run.calibrations import Calibration
from onnxadmm.run.checkpoint import SCHEMA, Checkpoints, Header, read_checkpoint
from onnxadmm.run.choices import Choices
from onnxadmm.run.command import command_line
from onnxadmm.run.doubts import first_look
from onnxadmm.run.ending import Ending, Finished, Option
from onnxadmm.run.finding import analyse, make_ready, measure_latency, state
from onnxadmm.run.forecast import (
    STAGE,
    TRYING_BYTES,
    Forecast,
    forecast_of,
    forecast_of_calibration,
    foresee,
    held_against,
)
from onnxadmm.run.in_bytes import quantize_with, try_quantizing
from onnxadmm.run.in_halves import halve_with
from onnxadmm.run.journal import Journal
from onnxadmm.run.likeness import output_error
from onnxadmm.run.machines import Site, as_bytes, share_of_batch
from onnxadmm.run.made_samples import WARNING, is_none, made_samples, refuse_tight
from onnxadmm.run.measure import Outcome, column_of, make_report
from onnxadmm.run.proving import cut_and_proven
from onnxadmm.run.reading import read_training
from onnxadmm.run.recipe import MOST_LOST, CalibrationOptions
from onnxadmm.run.refits import refitted, some_samples
from onnxadmm.run.shared import HELD_OUT, TEST, Reading, Shared, grown, without_amounts
from onnxadmm.run.trainings import Pruned, Training
from onnxadmm.run.trying import try_step, warn_of_frozen
from onnxadmm.run.variants import Variant
from onnxadmm.train.engine import Engine, check_precision, choose_engine
from onnxadmm.train.prepare.time_major import refuse_time_major
from onnxadmm.units.units import Units

#: What the note about a checkpoint says after an error; after some of them going on would end in the same way.
_WAY_ON = "is the run so far; --resume goes on from there"
_NO_WAY_ON: Mapping[type[Exception], str] = {
    DivergedError: "is the last good state",
    VerificationError: "is the trained network, before it was cut",
}
#: Under what name a checkpoint says who computed gradients; it does not decide what may go on with it.
_ENGINE = "--engine"


@dataclass
class Compression:
    """One run of ``compress``; its public methods are the steps.

    They are called in the order in which they stand, once each, ``resume`` only where there is something to resume.

    Attributes:
        model: as given.
        choices: what is asked for.
        journal: what is told while it runs, and goes into the report.
        ending: what is done in the end.
        expected: least held-out accuracy of the original, a share; None: more than guessing would have.
        shared: what earlier runs have left, and this one leaves.
        count: samples that those of the data stand for; None: themselves.
        crew: machines that train; None: this process does.
        teacher: another network that teaches; None: the original does.
        engine: who computes gradients; None where nothing trains.
        ready: the model as it is pruned and trained, after ``find``.
        units: what may go, after ``find``.
        problem: what the solver is given, after ``find``.
        latency: what plans of the model take, where the budget is of that.
        training: data, teacher and both trainings, after ``read``.
    """

    model: Model
    choices: Choices
    journal: Journal
    ending: Ending
    expected: float | None = None
    shared: Shared = field(default_factory=Shared)
    count: int | None = None
    crew: RayCrew | None = None
    teacher: Model | None = None
    engine: Engine | None = field(init=False, default=None)
    ready: Model = field(init=False)
    units: Units = field(init=False)
    problem: Problem = field(init=False)
    latency: LatencyCost | None = field(init=False, default=None)
    training: Training = field(init=False)
    _reading: Reading = field(init=False)
    _goes_on: Pruned | None = field(init=False, default=None)
    _ignored: tuple[str, ...] = field(init=False, default=())
    _is_simplified: bool = field(init=False, default=False)
    _before: Header | None = field(init=False, default=None)
    _begun: State = field(init=False, default_factory=dict)
    _forecast: Forecast | None = field(init=False, default=None)

    def choose_engine(self) -> None:
        """Find who computes gradients, where something trains.

        Raises:
            TrainingUnavailableError: nobody does here.
            OptionError: not in the precision that is asked for.
        """
        if self._trains():
            self.engine = choose_engine(self.choices.recipe.engine)
            check_precision(self.choices.recipe.precision)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it cannot be read, or is that of a run with another model or other options.
        """
        self._before, self._begun = read_checkpoint(path)
        self.choices = self.choices.with_epochs_of(self._before.options)
        self._before.refuse_other_run(sha256=self.model.sha256, options=self.choices.deciding(), but={_ENGINE})
        before = self._before.options.get(_ENGINE)
        if before not in (None, self.engine):
            self.journal.warnings.append(
                f"Training began with the {before} engine and went on with the {self.engine} one."
            )
        self.journal.resume(self._before.history, self._before.seconds)

    def find(self) -> None:
        """Make the model ready, find the units, and refuse a budget that cannot be met before anything costs time.

        Where the file leaves sizes free and nobody has stated them, they are those of the data, which come first.
        """
        refuse_time_major(self.model)
        with self.journal.stage("analyse"):
            self.ready, self._is_simplified = make_ready(self.model, self.choices, self.journal)
            if not leaves_sizes_open(self.model):
                self._analyse()
        if not self._waits_for_data():
            self._state()

    def read(self, data: object, test: object | None) -> None:
        """Read the data and divide them."""
        made, waited = is_none(data) and self.choices.calibration is not None, self._waits_for_data()
        known = self.shared.reading
        with self.journal.stage("make samples" if made else "read data"):
            if known is not None and known.is_of((data, test), self._read_for()):
                self._reading, self.training = known, known.told_to(self.journal)
            else:
                self._read_anew(data, test, made=made)
            if leaves_sizes_open(self.model):
                shapes = self.training.samples.sample_shapes
                self.model, self.ready = with_samples(self.model, shapes), with_samples(self.ready, shapes)
                self._analyse()
            if made:
                refuse_tight(self.choices.budget, self.units, file_bytes=self.model.file_bytes)
            if self._before is not None:
                self._before.refuse_other_data(self._reading.digest)
        if waited:
            self._state()
        if self.crew is not None:
            self._gather(self.crew, data, made=made)

    def _gather(self, crew: RayCrew, data: object, *, made: bool) -> None:
        """Tell the machines what they need for taking part, each of which reads the data itself."""
        recipe = self.choices.recipe
        share = share_of_batch(self.training.samples, crew.count, batch_size=recipe.batch_size)
        recipe = replace(recipe, batch_size=share, workers=1 if crew.is_local else recipe.workers)
        other = crew.settle(
            Site(
                model=as_bytes(self.ready),
                input_shapes=self.ready.input_shapes,
                data=data,
                made=made,
                digest=self._reading.digest,
                recipe=recipe,
                preprocessing=self.choices.preprocessing,
                inputs=self.choices.inputs,
                seed=self.choices.seed,
                trains=self.choices.calibration is None,
                teacher=None if self.teacher is None else as_bytes(self.teacher),
            )
        )
        self.training = replace(self.training, rounds=Rounds(crew, tell=self.journal.progress.note, known=not other))

    def _read_anew(self, data: object, test: object | None, *, made: bool) -> None:
        """Read the data, and look at the original on them."""
        said, warned = len(self.journal.notes), len(self.journal.warnings)
        self.training = read_training(
            self.ready,
            made_samples(self.ready, seed=self.choices.seed, inputs=self.choices.inputs) if made else data,
            test,
            recipe=self.choices.recipe,
            preprocessing=self.choices.preprocessing,
            made=made,
            inputs=self.choices.inputs,
            seed=self.choices.seed,
            journal=self.journal,
            trains=self.choices.calibration is None,
            count=self.count,
            teacher=self.teacher,
        )
        if made:
            self.journal.warn(WARNING)
        if self._trains():
            self.training.first_batch()  # too few samples are refused before anything is said of them
        begin = time.perf_counter()
        looked = first_look(self.training, self.model, expected=self.expected)
        self._reading = self.shared.reading = Reading(
            sources=(data, test),
            options=self._read_for(),
            training=self.training,
            digest=self.training.digest(),
            original={} if looked is None else {HELD_OUT: looked},
            notes=tuple(self.journal.notes[said:]),
            warnings=tuple(self.journal.warnings[warned:]),
            looking=time.perf_counter() - begin,
        )

    def _read_for(self) -> dict[str, str]:
        """What decides how data are read, and what is said of the original on them."""
        return {**without_amounts(self.choices.deciding()), "--expect-accuracy": str(self.expected)}

    def _analyse(self) -> None:
        self.ready, self.units, self._ignored = analyse(self.ready, self.model, self.choices, self.ending, self.journal)

    def _waits_for_data(self) -> bool:
        """Whether the problem cannot be stated without the data: they tell sizes, and inputs to measure with."""
        goal = self.choices.goal
        return leaves_sizes_open(self.model) or (goal is not None and goal.latency is not None)

    def _state(self) -> None:
        """State the problem, and refuse it where it cannot be solved; a budget of latency is measured first."""
        ready, units, choices, ending, goal = self.ready, self.units, self.choices, self.ending, self.choices.goal
        if goal is not None and goal.latency is not None:
            self.latency = measure_latency(ready, units, goal, choices, ending, self.journal, inputs=self._inputs())
        self.problem = state(ready, units, self.model, choices, ending, latency=self.latency)

    def try_bytes(self) -> None:
        """Refuse what cannot be put into bytes, where that is asked for, before anything takes long."""
        if self.ending.int8:
            load_tools()  # the time of the stage tells that of quantising later
            with self.journal.stage(TRYING_BYTES):
                try_quantizing(self.training, self.ready)

    def try_training(self) -> None:
        """Take one step and check gradients in a process of its own, before anything takes long."""
        if not self._trains():
            return
        found = self._reading.preflight or try_step(self.training, self.ready, self.units)
        self._reading.preflight = found
        warn_of_frozen(self.training, found, self.problem)

    def foresee(self) -> Forecast | None:
        """Measure on a few steps what is to come, and shorten the epochs where they have to fit a time.

        Where a run before has measured, it follows from that and from how large the network will be.

        Returns:
            What was found; None for a run that goes on from a checkpoint, or whose loss is not finite.

        Raises:
            OptionError: not even the least fits.
        """
        if self._before is not None:
            return None
        calibration = self._calibration()
        if calibration is not None:
            with self.journal.stage(STAGE):
                expected = calibration.expected(self.ready, self.units, self.problem)
                self._forecast = forecast_of_calibration(
                    expected, self.training, self.ready, self.units, self.problem, ending=self.ending
                )
            return self._forecast
        if self._reading.paces is None:
            minutes = self.choices.max_minutes
            self._reading.paces, recipe = foresee(
                self.training, self.ready, self.units, self.problem, ending=self.ending, minutes=minutes
            )
            self.choices, self.training = replace(self.choices, recipe=recipe), replace(self.training, recipe=recipe)
        paces = self._reading.paces
        if paces is not None and self.shared.pruned is not None:
            shares = (self.shared.epochs, self.shared.retrain_epochs)
            paces = paces.under(self.shared.expected_macs(self.problem, self.units), shares=shares)
        if paces is not None:
            self._forecast = forecast_of(
                paces,
                self.choices.recipe,
                file_bytes=self.model.file_bytes,
                teacher_bytes=self.training.teacher_bytes,
            )
        return self._forecast

    def finish(self, folder: OutputFolder | None) -> Finished:
        """Train and prune, shrink, verify, retrain, measure, write; whatever ends it early leaves a checkpoint."""
        if folder is None:
            result, pruned, verification = self._train(Checkpoints(None, self._header))
            saved = from_proto(to_proto(result))
            variants = self._variants(saved, None)
            report = self._measure(saved, variants, pruned, verification)
            return Finished(report, self._plan(pruned), saved, {each.name: each.model for each in variants})
        folder.begin()
        checkpoints = Checkpoints(folder.checkpoint, self._header)
        try:
            with ending_on_sigterm():
                with self.journal.writing(HistoryWriter(folder.work / HISTORY_NAME)):
                    result, pruned, verification = self._train(checkpoints)
                names = tuple(pruned.zeros) if self.ending.sparse else False
                save(result, folder.work / MODEL_NAME, sparse=names, single_file=self.ending.single_file)
                saved = load(folder.work / MODEL_NAME)
                variants = self._variants(saved, folder.work)
                report, plan = self._measure(saved, variants, pruned, verification), self._plan(pruned)
                write_text(folder.work / PLAN_NAME, plan.to_json())
                write_report(report, folder.work)
                folder.publish()
        except BaseException as error:
            with suppress(OutputError):  # what ended the run matters more
                checkpoints.flush()
            if folder.checkpoint.exists():
                way = next((way for kind, way in _NO_WAY_ON.items() if isinstance(error, kind)), _WAY_ON)
                self.journal.progress.note(f"In {folder.checkpoint} {way}.")
            raise
        forms = {each.name: load(folder.path / each.file) for each in report.variants}
        return Finished(report, plan, load(folder.path / MODEL_NAME), forms)

    def _train(self, checkpoints: Checkpoints) -> tuple[Model, Pruned, Verification]:
        """Return the small model, trained; what was pruned; and the proof of the cut."""
        keep, begun = checkpoints.keep, self._begun
        self.shared.refuse_other(self._header())
        calibration = self._calibration()
        if calibration is not None:
            pruned = calibration.prune(self.ready, self.units, self.problem, checkpoints=checkpoints, resume=begun)
            self.shared.calibration = calibration.measured
        else:
            pruned = self._pruned(keep, begun)
            if self.choices.recipe.refit:
                pruned = refitted(self.training, self.ready, self.units, pruned)
        checkpoints.flush()
        self.shared.header = self._header()
        with self.journal.stage("shrink and verify"):
            small, verification = cut_and_proven(
                self.ready,
                self.units,
                pruned,
                self.training,
                given=self.model,
                seed=self.choices.seed,
                inputs=self._inputs(),
            )
        part = 1.0 if self._goes_on is None else self.shared.retrain_epochs
        result = self.training.retrain(small, pruned, keep_state=keep, resume=begun, part_of_epochs=part)
        if calibration is None:
            self.shared.pruned = grown(pruned, result, self.ready, self.units)
        return result, pruned, verification

    def _calibration(self) -> Calibration | None:
        """What chooses units and fits layers before anything trains; None where the network trains meanwhile."""
        measured, training = dict(self.shared.calibration), self.training
        if self.choices.calibration is not None:
            return Calibration(training, self.choices.calibration, measured)
        if self.choices.calibrates:
            return Calibration(replace(training, samples=some_samples(training)), CalibrationOptions(), measured)
        return None

    def _variants(self, saved: Model, folder: Path | None) -> list[Variant]:
        """The result in the other forms that were asked for, written into a folder where there is one."""
        ending = self.ending
        in_bytes, in_halves = (folder and folder / name for name in (INT8_NAME, FP16_NAME))
        made = [quantize_with(self.training, saved, in_bytes, most=MOST_LOST)] if ending.int8 else []
        if ending.fp16:
            made.append(halve_with(self.training, saved, in_halves, single_file=ending.single_file))
        return made

    def _pruned(self, keep_state: Callable[[State], None], begun: State) -> Pruned:
        """Prune while training, from the network of an earlier run where there is one."""
        self._goes_on = start = self.shared.pruned
        model = self.ready if start is None else with_constants(self.ready, start.weights)
        problem = self.problem if start is None else replace(self.problem, start=start.keep)
        return self.training.prune(
            open_gates(model, self.units),
            problem,
            keep_state=keep_state,
            resume=begun,
            part_of_epochs=1.0 if start is None else self.shared.epochs,
        )

    def _trains(self) -> bool:
        """Whether the training engine is needed."""
        return self.choices.calibration is None or self.choices.recipe.retrain_epochs != 0

    def _header(self) -> Header:
        return Header(
            schema=SCHEMA,
            sha256=self.model.sha256,
            data=self._reading.digest,
            options=self.choices.deciding() | ({} if self.engine is None else {_ENGINE: self.engine}),
            history=tuple(self.journal.history),
            seconds=self.journal.seconds(),
        )

    def _inputs(self) -> dict[str, object]:
        """The values of inputs that stay the same for every sample, wherever they came from."""
        return {**self.choices.inputs, **self.training.samples.held}

    def _measure(self, saved: Model, variants: Sequence[Variant], pruned: Pruned, verification: Verification) -> Report:
        """Measure what was saved against what was given."""
        with self.journal.stage("measure"):
            saved = self._sized(saved)
            outcome = Outcome(
                original=self.model,
                analysed=self.ready,
                result=saved,
                units=self.units,
                keep=pruned.keep,
                zeros=pruned.zeros,
                budget=self.choices.budget_met(self.problem.cost, pruned.keep),
                latency=self.latency,
                problem=self.problem,
                verification=verification,
            )
            held_out = self._reading.quality(HELD_OUT, self.model, saved)
            test = self._reading.quality(TEST, self.model, saved)
            variants = [replace(each, model=self._sized(each.model)) for each in variants]
            columns = [column_of(self.training, each.model) for each in variants]
            error = None if self.choices.calibration is None else output_error(self.training, self.model, saved)
        told = self.training.damage
        if told and told not in self.journal.notes:  # found while it trained, behind what was said in the beginning
            self.journal.warn(told)
        if told := self.training.waiting:
            self.journal.say(told)
        report = make_report(
            outcome,
            held_out=held_out,
            test=test,
            command=command_line(self.choices, self.ending.options),
            options={
                **self.choices.options(),
                **self.ending.options,
                **self._sizes(),
                "loss": self.training.loss.task.value,
                OUTPUT_ERROR: error,
                "engine": self.engine,
                "workers": self.journal.workers,
                "training_megabytes": round(self.journal.training_bytes / 1e6),
            },
            seed=self.choices.seed,
            inputs=self._inputs(),
            notes=tuple(self.journal.notes),
            warnings=tuple(self.journal.warnings),
            history=tuple(self.journal.history),
            stages=self.journal.stages,
            progress=self.journal.progress,
            timing=self.ending.timing,
            variants=list(zip(variants, columns, strict=True)),
            taught_by=self.training.who_teaches,
        )
        return held_against(report, self._forecast, self.journal)

    def _sized(self, model: Model) -> Model:
        """A model with the sizes of the original, where the file leaves them free."""
        return replace(model, input_shapes=self.model.input_shapes)

    def _sizes(self) -> dict[str, Option]:
        """The option that says at which sizes everything was counted and timed, where the file leaves them free."""
        used = self.units.shapes.sizes
        return {"input_shape": in_words(used)} if used else {}

    def _plan(self, pruned: Pruned) -> Plan:
        return make_plan(
            self.ready,
            self.units,
            pruned.keep,
            inexact=self.choices.inexact,
            features=self.choices.features,
            ignored=self._ignored,
            simplified=self._is_simplified,
            zeros=pruned.zeros,
            fitted=tuple(sorted(pruned.weights)) if self.choices.calibrates else (),
            note=describe_goal(
                self.choices.budget_met(self.problem.cost, pruned.keep),
                self.choices.targets,
                connection_targets=self.choices.connection_targets,
                unit_share=self.choices.unit_share,
            ),
        )
