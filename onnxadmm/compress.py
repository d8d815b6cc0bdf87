"""The public ``compress``: a model and data in, a smaller model, its plan and a report out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from onnxadmm.bench.simd import this_machine
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.console import listening
from onnxadmm.errors import DivergedError, OptionError
from onnxadmm.graph.stated import in_words as shapes_as_text
from onnxadmm.operators.outside import rule_files
from onnxadmm.output import OutputFolder
from onnxadmm.plan.budget import Budget, Share, parse_share
from onnxadmm.plan.given import given_budget, given_or_usual
from onnxadmm.plan.problem import Limits, refuse_contradictions
from onnxadmm.progress import SILENT, ProgressLike
from onnxadmm.run.asked import calibrating_with, leaves_method_open, minutes_of, refuse_no_lesson, refuse_no_training
from onnxadmm.run.choices import Choices, Option
from onnxadmm.run.doubts import parse_accuracy
from onnxadmm.run.ending import Ending
from onnxadmm.run.forecast import Forecast
from onnxadmm.run.journal import Journal
from onnxadmm.run.made_samples import is_none
from onnxadmm.run.measure import Timing
from onnxadmm.run.preset import refuse_beside_preset, with_preset
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe
from onnxadmm.run.result import Compressed
from onnxadmm.run.shared import Shared
from onnxadmm.run.steps import Compression
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import InputShapes, Source, opened


def compress(
    model: Source,
    *,
    data: object = None,
    calibrate: object = None,
    budget: Budget | Mapping[str, Any] | None = None,
    targets: Mapping[str, Share] | None = None,
    connection_targets: Mapping[str, Share] | None = None,
    preset: str | None = None,
    out: str | Path | None = None,
    test: object | None = None,
    teacher: Source | None = None,
    expect_accuracy: Share | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    inputs: Mapping[str, object] | None = None,
    calibration: CalibrationOptions | Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
    features: bool = False,
    simplified: bool = True,
    sparse: bool = True,
    single_file: bool = False,
    int8: bool = False,
    fp16: bool = False,
    seed: int = 0,
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
    bench: bool = True,
    bench_batch: int = Timing.batch,
    bench_threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    quick: bool = False,
    progress: ProgressLike = SILENT,
    options: Mapping[str, str | int | float | bool | None] | None = None,
    shared: Shared | None = None,
) -> Compressed:
    """Choose the units of a model that go, remove them, prove that, train the rest, and measure.

    With ``calibrate`` instead of ``data`` nothing trains and no labels are needed: units are chosen by what the layers
    that read them can make up for, and those layers are fitted to the outputs of the original. It takes minutes, any
    onnxruntime, and any operator. Where the recipe names epochs, the small network learns from the original afterwards.

    Args:
        model: path or model.
        data: training data, see ``onnxadmm.train.data.sources.read_source``: a path, arrays or an iterable of batches.
        calibrate: samples, labelled or not, in the same forms; some hundreds are enough.
        budget: what the result may cost; may be left out when targets are given. A dict of its fields will do, here
            as for recipe, preprocessing and limits.
        targets: share of the units that stays, by pattern of group, layer or weight names; for mode ``"joint"``.
        connection_targets: share of the connections that stays, by pattern of layer or weight names, of the entries of
            the units that stay; for mode ``"joint"`` with training data. What no pattern names keeps the share of the
            budget, or all. The first pattern that matches counts.
        preset: ``"lenet5-paper"``: method, targets and budgets of the paper's experiments with LeNet-5, in either mode;
            for networks of that shape.
        out: folder for ``model.onnx``, ``plan.json``, ``report.html``, ``report.json``, ``report.md`` and
            ``history.jsonl``; until they are complete, it holds the folder ``unfinished`` with the checkpoint. None
            writes nothing: the model is in what is returned.
        test: test data, used for the last line of the report and nothing else.
        teacher: path or model that teaches in place of the original: a larger network, or the original of one that was
            compressed before. It reads the same inputs and has answers of the same shape: inputs and outputs are those
            of the same names, or the only ones. A calibration goes on fitting layers to the model.
        expect_accuracy: least accuracy of the original on held-out data, ``0.9`` or ``"90%"``; None: more than guessing
            would have. Below it the run ends before anything takes long, and says what is usually wrong and would help;
            0 lets any original pass.
        recipe: how to train.
        preprocessing: what is done to stored values.
        inputs: values of inputs by name, array-like, the same for every sample and as the model reads them: one that
            has no batch must have its value here or in the data.
        calibration: how to calibrate, with ``calibrate``, and with ``data`` where the recipe's method is
            ``"calibrated"``, which ``"auto"`` mostly is.
        limits: how far a group may shrink.
        ignore: patterns of names of groups, layers or weights that must stay.
        inexact: also prune through operators that mix along the removed axis.
        features: columns that a product reads behind a flattening are units of their own, and a channel goes with the
            last of its columns; a Gather picks what stays of them.
        simplified: simplify the model first.
        sparse: store weights whose connections were pruned sparsely, where that takes less room.
        single_file: write weights into the file, also where the model has external data.
        int8: make the small model in bytes as well, as ``quantize`` does, in ``model.int8.onnx`` beside the other.
        fp16: store it with weights in 16 bits as well, in ``model.fp16.onnx``: half of the bytes, the same speed.
        seed: of every random choice.
        input_shapes: whole shapes of inputs, by name, where the file leaves sizes free; what is not stated is as in the
            data. Costs are counted there, and the proof and the measurement of latency made.
        custom_ops: libraries of custom operators, see ``onnxadmm.runtime.custom_ops``; every session of the run
            registers them, in its child processes too.
        bench: time original and result.
        bench_batch: the larger batch size they are timed at, beside 1.
        bench_threads: of one operator while they are timed; None: every core this process may use.
        force: replace an older result, or an unfinished run, in ``out``.
        resume: go on from the checkpoint that an interrupted run with the same model, data and options left in
            ``out/unfinished``; the result is that of a run that was not interrupted.
        max_minutes: what a run that trains may take: a few steps are measured, and the epochs of both trainings
            shortened alike until they fit; behind a calibration, those of retraining. What was fitted stands in the
            report, and a resumed run keeps it.
        quick: the same as ``max_minutes=5``.
        progress: told what happens: True shows it, as bars on a terminal or in a notebook; a callable is called with
            every ``Stage``, ``Advance``, ``Iteration`` and ``Note``; or any ``Progress``, such as ``LoggedProgress()``.
        options: what else to write into the report beside the options of the run.
        shared: what runs with the same model, data and options but ever smaller budgets pass on to each other, as
            ``sweep`` has it: what a calibration measured, or the pruned network that the next training begins with.

    Returns:
        The report, with the model and the plan it is about.

    Raises:
        InputError: model, data or options cannot be used, the original does badly on the data, or the model cannot be
            trained; nothing was written.
        NothingToPruneError, BudgetError: no group may shrink, or the budget is out of reach; nothing was written.
        VerificationError: the shrunk model does not compute what the masked original computes; no result was written,
            a checkpoint holds the trained network.
        DivergedError: training blew up; the last good state is in ``out/unfinished``.

    Examples:
        ```python
        result = oa.compress("model.onnx", calibrate=images, budget={"macs": "60%"}, bench=False)
        oa.save(result.model, "small.onnx")
        print(result.after.parameters, result.plan)
        ```

    Whatever ends the training, a signal and ``KeyboardInterrupt`` included, leaves a checkpoint in ``out/unfinished``.
    """
    with begun(SimpleNamespace(**locals())) as (run, folder):
        # A calibration behind which nothing trains says itself what it will take.
        expected = run.foresee() if run.trains else None
        if expected is not None:
            run.journal.say(expected.describe())
        finished = run.finish(folder)
        forms = finished.variants
        return Compressed(
            finished.report, model=finished.model, plan=finished.plan, int8=forms.get("int8"), fp16=forms.get("fp16")
        )


def forecast(model: Source, **options: Any) -> Forecast:
    """Return what ``compress`` would take with the same arguments: minutes by stage, memory, disk.

    The model and the data are read, the original is measured, and a few steps of the trainings are taken, all that
    ``compress`` does before it begins. Nothing is written. A calibration is told by the calibration itself.

    Args:
        model: path or model.
        options: whatever else ``compress`` takes.

    Returns:
        Seconds by stage, with the epochs that ``max_minutes`` leaves.

    Raises:
        OptionError: ``resume``, which has nothing to begin; or ``max_minutes`` are too few.
        InputError, BudgetError, NothingToPruneError: as ``compress`` does before it trains.
        DivergedError: the loss is not finite from the start.

    Examples:
        ```python
        recipe = oa.Recipe(distillation=1, batch_size=32)  # no labels
        expected = oa.forecast("model.onnx", data=images, budget={"macs": 0.5}, recipe=recipe, quick=True)
        print(expected.seconds / 60, expected.epochs, expected.retrain_epochs)
        ```
    """
    given = signature(compress).bind(model, **options)
    given.apply_defaults()
    if given.arguments["resume"]:
        raise OptionError(
            "--dry-run", expected="a run that begins", found="--resume", way_out="leave one of the two out"
        )
    with begun(SimpleNamespace(**given.arguments), writes=False) as (run, _):
        told = run.foresee()
    if told is None:
        raise DivergedError(
            "the first steps", expected="a finite loss", found="NaN or infinity", way_out="check the model and the data"
        )
    return told


@contextmanager
def begun(
    asked: SimpleNamespace, *, writes: bool = True, count: int | None = None
) -> Iterator[tuple[Compression, OutputFolder | None]]:
    """Do all of a run that comes before anything takes long.

    Args:
        asked: the parameters of ``compress``, by name.
        writes: whether there is a folder to write into.
        count: samples that those of the data stand for; None: themselves.

    Yields:
        The run, and where it writes.
    """
    with found(asked, writes=writes, count=count) as (run, folder):
        run.read(source_of(asked, run), asked.test)
        run.try_bytes()
        run.try_training()
        yield run, folder


def source_of(asked: SimpleNamespace, run: Compression) -> object:
    """Return what a run reads: samples alone, or data to train with."""
    return asked.calibrate if run.choices.samples_alone else asked.data


@contextmanager
def found(
    asked: SimpleNamespace, *, writes: bool = True, count: int | None = None
) -> Iterator[tuple[Compression, OutputFolder | None]]:
    """Do what ``begun`` does before the data are read: a budget out of reach is refused where that needs no data."""
    if asked.resume and asked.out is None:
        raise OptionError("--resume", expected="an out folder", found="none", way_out="give the folder of that run")
    expected = None if asked.expect_accuracy is None else parse_accuracy(asked.expect_accuracy)
    goal = given_budget(asked.budget)
    shares, connection_shares = (
        {pattern: parse_share(share, option=option) for pattern, share in (given or {}).items()}
        for option, given in (("--target", asked.targets), ("--connection-target", asked.connection_targets))
    )
    chosen = given_or_usual(Recipe, asked.recipe, "the recipe", "Recipe(epochs=5)")
    prepared = given_or_usual(
        Preprocessing, asked.preprocessing, "the preprocessing", "Preprocessing(mean=[0.13], std=[0.31])"
    )
    if leaves_method_open(chosen, vars(asked)):
        zeroes = bool(connection_shares) or (goal is not None and goal.connections is not None)
        chosen = chosen.settled(connections=zeroes)
    chosen, calibrating = calibrating_with(asked.data, asked.calibrate, chosen, asked.calibration)
    if asked.teacher is not None:
        refuse_no_lesson(chosen, calibrates=calibrating is not None)
    minutes = minutes_of(asked, chosen, calibrates=calibrating is not None)
    bounds = given_or_usual(Limits, asked.limits, "the limits", "Limits(max_ratio=0.9)")
    timing = Timing(asked.bench_batch, asked.bench_threads) if asked.bench else None
    if calibrating is None or calibrating.max_drop is None:
        if asked.preset is None:
            layer_wise = chosen.mode == "joint"
            refuse_contradictions(goal, shares, connection_targets=connection_shares, layer_wise=layer_wise)
    elif goal is not None or connection_shares or is_none(asked.calibrate):
        contradicts = goal is not None or bool(connection_shares)
        raise OptionError(
            "--max-drop",
            expected="samples and no budget: the least that keeps the promise is searched for",
            found="a budget" if contradicts else "no samples",
            way_out="leave the budget out" if contradicts else "give samples",
        )
    if asked.int8 and is_none(asked.calibrate):
        raise OptionError(
            "--int8",
            expected="samples, which say how far activations reach",
            found="--calibrate none",
            way_out="give some hundreds of samples",
        )
    with ExitStack() as stack:
        told_to = stack.enter_context(listening(asked.progress))
        libraries = stack.enter_context(custom_operators(asked.custom_ops))
        shared = asked.shared or Shared()
        crew = None
        if chosen.cluster is not None:
            refuse_no_training(chosen, calibrating)
            crew = shared.crew or stack.enter_context(crew_of(chosen.cluster, asked.custom_ops))
        teacher = None if asked.teacher is None else opened(asked.teacher)
        choices = Choices(
            budget=goal,
            targets=shares,
            connection_targets=connection_shares,
            preset=None,
            inputs=dict(asked.inputs or {}),
            limits=bounds,
            preprocessing=prepared,
            calibration=calibrating,
            recipe=chosen,
            ignore=tuple(asked.ignore),
            inexact=asked.inexact,
            features=asked.features,
            simplified=asked.simplified,
            seed=asked.seed,
            input_shapes=shapes_as_text(asked.input_shapes or {}) or None,
            custom_ops=tuple(sorted(library.sha256 for library in libraries)) or None,
            rules=rule_files() or None,
            teacher=None if teacher is None else teacher.sha256,
            max_minutes=minutes,
        )
        model = opened(asked.model, asked.input_shapes)
        if asked.preset is not None:
            refuse_beside_preset(asked.preset, choices)
            choices = with_preset(asked.preset, choices, model)
        choices = replace(choices, limits=with_simd_block(choices.limits).under(choices.goal))
        told: dict[str, Option] = {
            "model": describe_source(asked.model),
            "data": describe_source(asked.data),
            "calibrate": describe_source(asked.calibrate),
            "test": describe_source(asked.test),
            "teacher": describe_source(asked.teacher),
            "expect_accuracy": expected,
            "out": None if asked.out is None else str(asked.out),
            "sparse": asked.sparse,
            "single_file": asked.single_file,
            "int8": asked.int8,
            "fp16": asked.fp16,
            "bench": asked.bench,
            "bench_batch": asked.bench_batch,
            "bench_threads": asked.bench_threads if asked.bench_threads is not None else this_machine().threads,
            "custom_ops": ", ".join(map(str, asked.custom_ops)) or None,
            **(asked.options or {}),
        }
        ending = Ending(
            sparse=asked.sparse,
            single_file=asked.single_file,
            int8=asked.int8,
            fp16=asked.fp16,
            timing=timing,
            options=told,
        )
        run = Compression(
            model,
            choices,
            Journal(told_to),
            ending,
            expected,
            shared,
            count,
            crew,
            teacher,
        )
        run.choose_engine()
        # The folder comes first: an old result in it is a matter of milliseconds, not to be found after minutes.
        folder = (
            None
            if asked.out is None or not writes
            else stack.enter_context(
                OutputFolder(
                    asked.out,
                    force=asked.force,
                    resume=asked.resume,
                    inputs=(asked.model, asked.data, asked.calibrate, asked.test, asked.teacher),
                )
            )
        )
        if folder is not None and asked.resume:
            run.resume(folder.checkpoint)
        run.find()
        yield run, folder


def crew_of(where: str, custom_ops: Sequence[str | Path]) -> RayCrew:
    """Return the machines of a cluster, which are there once it is entered.

    Args:
        where: as ``--cluster`` has it.
        custom_ops: libraries of the run.

    Raises:
        OptionError: they cannot be given what the model needs, Ray is missing, or nobody answers there.
    """
    if custom_ops or rule_files():
        raise OptionError(
            "--cluster",
            expected="operators that onnxadmm knows, as the other machines do",
            found="--custom-ops" if custom_ops else "--rules",
            way_out="leave --cluster out",
        )
    return RayCrew(where)


def describe_source(source: object) -> str | None:
    """Return how a report calls a model or data: by the path, or by what is in memory."""
    if source is None or isinstance(source, (str, Path)):
        return None if source is None else str(source)
    return f"in memory: {type(source).__name__}"


def with_simd_block(limits: Limits) -> Limits:
    """Return limits that round to the block of this processor where nothing was said."""
    return limits if limits.round_to is not None else replace(limits, round_to=this_machine().simd_floats)
