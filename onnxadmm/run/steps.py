"""The steps of a compression, in order: those that follow when the data have been read."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxadmm.admm.state import State
from onnxadmm.errors import BudgetError, DivergedError, OutputError, VerificationError
from onnxadmm.files import discard
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, load, save, to_proto
from onnxadmm.graph.stated import in_words
from onnxadmm.int8.static import load_tools
from onnxadmm.interrupt import ending_on_sigterm
from onnxadmm.output import FP16_NAME, HISTORY_NAME, INT8_NAME, MODEL_NAME, PLAN_NAME, OutputFolder
from onnxadmm.plan.drop import Drop
from onnxadmm.plan.plan import Plan, make_plan
from onnxadmm.plan.problem import describe_goal
from onnxadmm.report.findings import OUTPUT_ERROR
from onnxadmm.report.report import Report
from onnxadmm.report.writer import HistoryWriter, write_report, write_text
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.verify import Verification
from onnxadmm.run.beginning import Beginning
from onnxadmm.run.behind import TRYING_BYTES
from onnxadmm.run.calibrations import Calibration
from onnxadmm.run.checkpoint import Checkpoints
from onnxadmm.run.command import command_line
from onnxadmm.run.ending import Finished, Option
from onnxadmm.run.forecast import (
    STAGE,
    Forecast,
    forecast_of,
    foresee,
    held_against,
)
from onnxadmm.run.forecast_calibrated import measured_calibration
from onnxadmm.run.in_bytes import quantize_with, try_quantizing
from onnxadmm.run.in_halves import halve_with
from onnxadmm.run.likeness import output_error
from onnxadmm.run.measure import Outcome, column_of, make_report
from onnxadmm.run.proving import cut_and_proven
from onnxadmm.run.recipe import MOST_LOST, Recipe
from onnxadmm.run.refits import refitted, some_samples
from onnxadmm.run.shared import HELD_OUT, TEST, grown
from onnxadmm.run.trainings import Pruned
from onnxadmm.run.trying import try_step, warn_of_frozen
from onnxadmm.run.variants import Variant

#: What the note about a checkpoint says after an error; after some of them going on would end in the same way.
_WAY_ON = "is the run so far; --resume goes on from there"
_NO_WAY_ON: Mapping[type[Exception], str] = {
    DivergedError: "is the last good state",
    VerificationError: "is the trained network, before it was cut",
}


@dataclass
class Compression(Beginning):
    """One run of ``compress``; its public methods are the steps.

    They are called in the order in which they stand, those of ``Beginning`` first, once each, ``resume`` only where
    there is something to resume.
    """

    _goes_on: Pruned | None = field(init=False, default=None)
    _forecast: Forecast | None = field(init=False, default=None)

    def try_bytes(self) -> None:
        """Refuse what cannot be put into bytes, where that is asked for, before anything takes long."""
        if self.ending.int8:
            load_tools()  # the time of the stage tells that of quantising later
            with self.journal.stage(TRYING_BYTES):
                try_quantizing(self.training, self.ready)

    def try_training(self) -> None:
        """Take one step and check gradients in a process of its own, before anything takes long."""
        if not self.trains:
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
            self._forecast = self._foresee_calibration(calibration)
            return self._forecast
        if self._reading.paces is None:
            minutes = self.choices.max_minutes
            self._reading.paces, recipe = foresee(
                self.training, self.ready, self.units, self.problem, ending=self.ending, minutes=minutes
            )
            self._follow(recipe)
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

    def _foresee_calibration(self, calibration: Calibration) -> Forecast:
        """What a run that calibrates takes, its epochs of retraining shortened where they have to fit a time."""
        with self.journal.stage(STAGE):
            expected = calibration.expected(self.ready, self.units, self.problem)
            paces = measured_calibration(
                expected, self.training, self.ready, self.units, self.problem, ending=self.ending, left=self.left
            )
        if (minutes := self.choices.max_minutes) is not None:
            spent = sum(self.journal.seconds().values())
            self._follow(paces.fitted(self.training.recipe, minutes=minutes, spent=spent))
        return paces.forecast(
            self.training.recipe, file_bytes=self.model.file_bytes, teacher_bytes=self.training.teacher_bytes
        )

    def _follow(self, recipe: Recipe) -> None:
        """Go on by a recipe whose epochs have been shortened."""
        self.choices, self.training = replace(self.choices, recipe=recipe), replace(self.training, recipe=recipe)

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
            if self.choices.calibrates and isinstance(error, BudgetError):
                discard(folder.checkpoint)  # going on would end in the same way, and no other budget may go on
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
            told = self._forecast is not None
            pruned = calibration.prune(
                self.ready, self.units, self.problem, checkpoints=checkpoints, resume=begun, told=told
            )
            self.shared.calibration = calibration.measured
        else:
            pruned = self._pruned(keep, begun)
            if self.choices.recipe.refits(steps_per_epoch=self.training.steps_per_epoch):
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
        result = self.training.retrain(
            small, pruned, keep_state=keep, resume=begun, part_of_epochs=part, left=self.left
        )
        if calibration is None:
            self.shared.pruned = grown(pruned, result, self.ready, self.units)
        return result, pruned, verification

    def _calibration(self) -> Calibration | None:
        """What chooses units and fits layers before anything trains; None where the network trains meanwhile."""
        options, training = self.choices.calibration, self.training
        if options is None:
            return None
        if not self.choices.samples_alone:
            training = replace(training, samples=some_samples(training))
        return Calibration(training, options, dict(self.shared.calibration))

    def _variants(self, saved: Model, folder: Path | None) -> list[Variant]:
        """The result in the other forms that were asked for, written into a folder where there is one."""
        ending = self.ending
        in_bytes, in_halves = (folder and folder / name for name in (INT8_NAME, FP16_NAME))
        made = [quantize_with(self.training, saved, in_bytes, most=Drop(MOST_LOST))] if ending.int8 else []
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
                budget=self.choices.budget_met(self.problem, pruned.keep),
                latency=self.latency,
                problem=self.problem,
                verification=verification,
            )
            held_out = self._reading.quality(HELD_OUT, self.model, saved)
            test = self._reading.quality(TEST, self.model, saved)
            variants = [replace(each, model=self._sized(each.model)) for each in variants]
            columns = [column_of(self.training, each.model) for each in variants]
            error = output_error(self.training, self.model, saved) if self.choices.samples_alone else None
        told = self.training.damage
        if told and told not in self.journal.notes:  # found while it trained, behind what was said in the beginning
            self.journal.warn(told)
        if told := self.training.waiting:
            self.journal.say(told)
        report = make_report(
            outcome,
            held_out=held_out,
            test=test,
            command=self._command(),
            options={
                **self.options(),
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

    def _command(self) -> str:
        """What makes the result again: all runs, where this one went on from the network of another."""
        of_all = None if self._goes_on is None else self.shared.command
        return of_all or command_line(self.choices, self.ending.options)

    def options(self) -> dict[str, Option]:
        """What was asked for and of what, by name on the command line, as a report holds it; known with the data."""
        return {
            **self.choices.options(),
            **self.ending.options,
            **self._sizes(),
            "loss": self.training.loss.task.value,
            "data_digest": self._reading.digest,
            # Beside the paths, behind which another file may stand on another day.
            "teacher_sha256": self.choices.teacher,
            "custom_ops_sha256": ", ".join(self.choices.custom_ops or ()) or None,
        }

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
                self.choices.budget_met(self.problem, pruned.keep),
                self.choices.targets,
                connection_targets=self.choices.connection_targets,
                unit_share=self.choices.unit_share,
            ),
        )
