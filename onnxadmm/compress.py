"""The walk: a model and data in, a smaller model, its plan and a report out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.selection import refuse_unreachable
from onnxadmm.admm.solver import Record, Solution, solve
from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.bench.simd import this_machine
from onnxadmm.errors import DivergedError
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, load, save, to_proto
from onnxadmm.graph.simplify import simplify
from onnxadmm.measure import Quality, Trial, make_report
from onnxadmm.output import CHECKPOINT_NAME, MODEL_NAME, PLAN_NAME, OutputFolder
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.plan import make_plan
from onnxadmm.plan.problem import Limits, describe_goal, refuse_contradictions, restrict_to, state_problem
from onnxadmm.progress import SILENT, Iteration, Progress, Residuals
from onnxadmm.recipe import Preprocessing, Recipe
from onnxadmm.report.report import Report, StageTime
from onnxadmm.report.writer import HISTORY_NAME, HistoryWriter, write_report, write_text
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import Verification, require, verify
from onnxadmm.surgery import Source, trial_inputs
from onnxadmm.train.batches import ArrayDataset, Batch, hold_out
from onnxadmm.train.data import load_data, signature_of
from onnxadmm.train.engine import require as require_training
from onnxadmm.train.evaluate import Teacher, evaluate
from onnxadmm.train.metrics import Metrics
from onnxadmm.train.preflight import preflight
from onnxadmm.train.retrain import Epoch, retrain
from onnxadmm.train.trainer import OrtTrainer
from onnxadmm.units.units import Units, find_units

FloatArray = NDArray[np.float32]

#: Held-out samples that are looked at after every iteration; all of them where something is decided.
_GLANCE = 1000


def compress(
    model: Source,
    *,
    data: object,
    budget: Budget | None = None,
    targets: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    test: object | None = None,
    recipe: Recipe | None = None,
    preprocessing: Preprocessing | None = None,
    limits: Limits | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
    simplified: bool = True,
    sparse: bool = True,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
    options: Mapping[str, str | int | float | bool | None] | None = None,
) -> Report:
    """Prune a model while training it, remove what was pruned, prove it, retrain the rest, and measure.

    Args:
        model: path or model.
        data: training data, see ``onnxadmm.train.sources.read_source``: a path, arrays or an iterable of batches.
        budget: what the result may cost; may be left out when targets are given.
        targets: share of the units that stays, by pattern of group, layer or weight names; for mode ``"joint"``.
        out: folder for ``model.onnx``, ``plan.json``, ``report.json``, ``report.md``, ``history.jsonl`` and the
            checkpoint; None writes nothing.
        test: test data, used for the last line of the report and nothing else.
        recipe: how to train.
        preprocessing: what is done to stored values.
        limits: how far a group may shrink.
        ignore: patterns of names of groups, layers or weights that must stay.
        inexact: also prune through operators that mix along the removed axis.
        simplified: simplify the model first.
        sparse: store weights with enough zeros sparsely.
        seed: of every random choice.
        force: replace an older result in ``out``.
        progress: told what happens.
        options: what to write into the report as the options of the run.

    Raises:
        InputError: model, data or options cannot be used, or the model cannot be trained; nothing was written.
        NothingToPruneError, BudgetError: no group may shrink, or the budget is out of reach; nothing was written.
        VerificationError: the shrunk model does not compute what the masked original computes; nothing was written.
        DivergedError: training blew up; the last good state is in ``out``.
    """
    chosen = recipe if recipe is not None else Recipe()
    refuse_contradictions(budget, targets or {}, layer_wise=chosen.mode == "joint")
    run = _Run(
        model=load(model),
        budget=budget,
        targets=dict(targets or {}),
        recipe=chosen,
        preprocessing=preprocessing if preprocessing is not None else Preprocessing(),
        limits=_with_simd_block(limits if limits is not None else Limits()),
        ignore=tuple(ignore),
        inexact=inexact,
        seed=seed,
        progress=progress,
    )
    require_training()
    # The folder comes first: an old result in it is a matter of milliseconds, not to be found after minutes.
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(OutputFolder(out, force=force))
        run.find(simplified=simplified)
        run.read(data, test)
        run.try_training()
        return run.walk(folder, sparse=sparse, options=options or {})


@dataclass
class _Run:
    """One run of ``compress``; its methods are the steps of the walk, in order."""

    model: Model
    budget: Budget | None
    targets: dict[str, float]
    recipe: Recipe
    preprocessing: Preprocessing
    limits: Limits
    ignore: tuple[str, ...]
    inexact: bool
    seed: int
    progress: Progress
    ready: Model = field(init=False)
    units: Units = field(init=False)
    problem: Problem = field(init=False)
    training: ArrayDataset = field(init=False)
    held_out: ArrayDataset = field(init=False)
    test: ArrayDataset | None = field(init=False, default=None)
    teacher: Teacher | None = field(init=False, default=None)
    notes: list[str] = field(init=False, default_factory=list)
    warnings: list[str] = field(init=False, default_factory=list)
    _first: Batch = field(init=False)
    history: list[Iteration] = field(init=False, default_factory=list)
    stages: list[StageTime] = field(init=False, default_factory=list)

    def find(self, *, simplified: bool) -> None:
        """Simplify, find the units, and refuse a budget that cannot be met before anything costs time."""
        with self._stage("analyse"):
            self.ready = self.model
            if simplified:
                result = simplify(self.model, keep_batch_normalization=True)
                self.ready = result.model
                self.notes.append(result.note)
            self.simplified = self.ready is not self.model
            self.units = find_units(self.ready, inexact=self.inexact, ignore=self.ignore)
            self.problem = state_problem(self.ready, self.units, self.budget, self.limits, targets=self.targets)
            refuse_unreachable(self.problem)

    def read(self, data: object, test: object | None) -> None:
        """Read the data and divide them."""
        with self._stage("read data"):
            signature = signature_of(self.ready)
            loss = self.recipe.objective()
            plain = self.preprocessing
            whole = load_data(
                data,
                signature=signature,
                loss=loss,
                mean=plain.mean,
                std=plain.std,
                scale=plain.scale,
                augment=plain.augment,
            )
            self.training, self.held_out = hold_out(whole, share=self.recipe.held_out, seed=self.seed)
            if test is not None:
                self.test = load_data(
                    test, signature=signature, loss=loss, mean=plain.mean, std=plain.std, scale=plain.scale
                )
            if loss.needs_teacher or not self.held_out.has_labels:
                self.teacher = Teacher(self.ready, loss=loss, threads=self.recipe.threads)
            self._first = next(iter(self.training.batches(self.recipe.batch_size, drop_last=True)))

    def try_training(self) -> None:
        """Take one step and check gradients in a process of its own, before anything takes long."""
        with self._stage("preflight"):
            found = preflight(
                self.ready,
                loss=self.recipe.objective(),
                batch=self._first,
                threads=self.recipe.threads,
                freeze_untrainable=self.recipe.freeze_untrainable,
            )
        frozen = [f"{name} (behind {operator})" for name, operator in found.untrainable.items()]
        if frozen:
            self.warnings.append(
                f"These weights kept their values, since training cannot pass an operator: {', '.join(frozen)}."
            )

    def walk(
        self, folder: OutputFolder | None, *, sparse: bool, options: Mapping[str, str | int | float | bool | None]
    ) -> Report:
        """Train and prune, shrink, verify, retrain, measure, write."""
        history = None if folder is None else HistoryWriter(folder.work / HISTORY_NAME)
        try:
            try:
                solution, trained = self._prune(history, folder)
                small, verification = self._shrink(solution, trained)
                result = self._retrain(small, solution, history)
            finally:
                if history is not None:
                    history.close()
        except DivergedError:
            if folder is not None:
                folder.keep_last_good_state()
            raise
        with self._stage("measure"):
            saved = from_proto(to_proto(result)) if folder is None else result
            if folder is not None:
                save(result, folder.work / MODEL_NAME, sparse=sparse)
                saved = load(folder.work / MODEL_NAME)
            trial = Trial(
                original=self.model,
                result=saved,
                units=self.units,
                keep=solution.keep,
                zeros=solution.zeros,
                budget=self.budget,
                limit=self.problem.budget,
                verification=verification,
            )
            held_out = Quality(self._score(self.model, self.held_out), self._score(saved, self.held_out))
            test = Quality(self._score(self.model, self.test), self._score(saved, self.test))
        report = make_report(
            trial,
            held_out=held_out,
            test=test,
            options=options,
            seed=self.seed,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
            history=tuple(self.history),
            stages=self.stages,
            progress=self.progress,
        )
        if folder is not None:
            plan = make_plan(
                self.ready,
                self.units,
                solution.keep,
                inexact=self.inexact,
                ignored=self.ignore,
                simplified=self.simplified,
                zeros=solution.zeros,
                note=describe_goal(self.budget, self.targets),
            )
            write_text(folder.work / PLAN_NAME, plan.to_json())
            write_report(report, folder.work)
            folder.publish()
        return report

    # -- the steps -----------------------------------------------------------------------------------

    def _prune(self, history: HistoryWriter | None, folder: OutputFolder | None) -> tuple[Solution, Model]:
        """Choose units and connections while the network trains; return the choice and the trained network."""
        recipe = self.recipe
        steps = len(self.training) // recipe.batch_size
        settings = recipe.settings(steps_per_epoch=steps)
        glance = self.held_out.take(np.arange(min(_GLANCE, len(self.held_out))))
        rounds = settings.epochs * min(settings.iterations_per_epoch, steps)
        with self._stage("prune", total=rounds), self._trainer(self.ready, weight_decay=0.0) as trainer:

            def report(record: Record) -> None:
                value = _goodness(self._metrics(with_constants(self.ready, trainer.weights), glance))
                self._tell(_row_of(record, value, connections=self.problem.connection_share < 1), history)

            problem = restrict_to(self.problem, trainer.weights)
            try:
                solution = solve(
                    trainer,
                    problem,
                    batches=lambda epoch: self._batches(epoch),
                    steps_per_epoch=steps,
                    settings=settings,
                    on_iteration=report,
                )
            except DivergedError:
                if folder is not None:
                    _checkpoint(folder, trainer.weights)
                raise
            if folder is not None:
                _checkpoint(folder, trainer.weights)
            return solution, with_constants(self.ready, trainer.weights)

    def _shrink(self, solution: Solution, trained: Model) -> tuple[Model, Verification]:
        """Cut, and prove that nothing but the cut has changed."""
        with self._stage("shrink and verify"):
            small = shrink(trained, self.units, solution.keep)
            masked = mask(trained, self.units, solution.keep)
            feeds: list[Mapping[str, NDArray[Any]]] = [*trial_inputs(trained, seed=self.seed)]
            real = 16 if batch_is_free(trained) else fixed_batch(trained)
            feeds.append(next(iter(self.held_out.batches(real, pad_last=True))).inputs)
            verification = verify(masked, small, feeds, kept=lambda name: self.units.positions(name, solution.keep))
            if verification.blind:
                names = ", ".join(verification.blind)
                self.warnings.append(f"Hardly depends on the input: {names}. The verification says little about it.")
            if not verification.passed and self.units.inexact:
                names = ", ".join(self.units.inexact)
                self.warnings.append(f"Pruned, as asked, through operators that mix channels: {names}.")
            return small, require(verification, inexact=self.units.inexact)

    def _retrain(self, small: Model, solution: Solution, history: HistoryWriter | None) -> Model:
        """Train the small network, its zeros held; return it at its best on held-out data."""
        recipe = self.recipe
        steps = len(self.training) // recipe.batch_size
        epochs = recipe.retraining_epochs(steps_per_epoch=steps)
        if epochs == 0:
            return small
        with (
            self._stage("retrain", total=epochs),
            self._trainer(small, weight_decay=recipe.retrain_weight_decay) as trainer,
        ):
            zeros = {name: trainer.weights[name] == 0 for name in solution.zeros if name in trainer.weights}

            def score(weights: Mapping[str, FloatArray]) -> float:
                return _goodness(self._metrics(with_constants(small, weights), self.held_out))

            def report(epoch: Epoch) -> None:
                row = Iteration(
                    stage="retrain",
                    iteration=epoch.epoch,
                    epoch=float(epoch.epoch),
                    loss=epoch.loss,
                    heldout=epoch.score,
                    learning_rate=epoch.learning_rate,
                    neurons=None,
                    connections=None,
                    cost=None,
                    budget=None,
                    kept_units=None,
                )
                self._tell(row, history)

            best = retrain(
                trainer,
                zeros=zeros,
                batches=lambda epoch: self._batches(epoch + 1_000_000),
                steps_per_epoch=steps,
                epochs=epochs,
                peak=recipe.retrain_learning_rate,
                warm_up=0.1,
                score=score,
                on_epoch=report,
            )
            return with_constants(small, best)

    # -- what the steps share ------------------------------------------------------------------------

    def _trainer(self, model: Model, *, weight_decay: float) -> OrtTrainer:
        return OrtTrainer(
            model,
            loss=self.recipe.objective(),
            batch_size=self.recipe.batch_size,
            threads=self.recipe.threads,
            weight_decay=weight_decay,
            freeze_untrainable=self.recipe.freeze_untrainable,
            input_shapes=self.training.sample_shapes,
        )

    def _batches(self, epoch: int) -> Iterator[Batch]:
        generator = np.random.default_rng([self.seed, epoch])
        batches = self.training.batches(
            self.recipe.batch_size,
            seed=int(generator.integers(2**31)),
            shuffle=True,
            augment=bool(self.preprocessing.augment),
            drop_last=True,
        )
        loss = self.recipe.objective()
        for batch in batches:
            yield self.teacher.label(batch) if self.teacher is not None and loss.needs_teacher else batch

    def _metrics(self, model: Model, data: ArrayDataset) -> Metrics:
        teacher = None if data.has_labels else self.teacher
        return evaluate(model, data, loss=self.recipe.objective(), threads=self.recipe.threads, teacher=teacher)

    def _score(self, model: Model, data: ArrayDataset | None) -> Metrics | None:
        return None if data is None else self._metrics(model, data)

    def _tell(self, row: Iteration, history: HistoryWriter | None) -> None:
        self.history.append(row)
        if history is not None:
            history.append(row)
        self.progress.iteration(row)
        self.progress.advance()

    @contextmanager
    def _stage(self, name: str, *, total: int | None = None) -> Iterator[None]:
        self.progress.stage(name, total=total)
        start = time.perf_counter()
        yield
        self.stages.append(StageTime(name, time.perf_counter() - start))


def _with_simd_block(limits: Limits) -> Limits:
    return limits if limits.round_to is not None else replace(limits, round_to=this_machine().simd_floats)


def _goodness(metrics: Metrics) -> float:
    """Return accuracy, or the negative loss where there is none: more is better."""
    return metrics.accuracy if metrics.accuracy is not None else -metrics.loss


def _checkpoint(folder: OutputFolder, weights: Mapping[str, FloatArray]) -> None:
    np.savez(folder.work / CHECKPOINT_NAME, allow_pickle=False, **weights)


def _row_of(record: Record, held_out: float, *, connections: bool) -> Iteration:
    pruned = Residuals(record.connection_primal, record.connection_dual, record.connection_rho)
    return Iteration(
        stage="prune",
        iteration=record.iteration,
        epoch=record.epoch,
        loss=record.loss,
        heldout=held_out,
        learning_rate=record.learning_rate,
        neurons=Residuals(record.neuron_primal, record.neuron_dual, record.neuron_rho),
        connections=pruned if connections else None,
        cost=record.cost,
        budget=record.budget,
        kept_units=record.kept,
    )
