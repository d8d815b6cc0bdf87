"""The public ``compress``: a model and data in, a smaller model, its plan and a report out."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from onnxadmm.bench.simd import this_machine
from onnxadmm.console import listening
from onnxadmm.errors import OptionError
from onnxadmm.graph.stated import in_words as shapes_as_text
from onnxadmm.operators.outside import rule_files
from onnxadmm.output import OutputFolder
from onnxadmm.plan.budget import Budget, Share, parse_share
from onnxadmm.plan.given import given_budget, given_or_usual
from onnxadmm.plan.problem import Limits, refuse_contradictions
from onnxadmm.progress import SILENT, ProgressLike
from onnxadmm.run.choices import Choices, Option
from onnxadmm.run.doubts import parse_accuracy
from onnxadmm.run.ending import Ending
from onnxadmm.run.journal import Journal
from onnxadmm.run.made_samples import is_none
from onnxadmm.run.measure import Timing
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe
from onnxadmm.run.result import Compressed
from onnxadmm.run.shared import Shared
from onnxadmm.run.steps import Compression
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import InputShapes, Source, opened
from onnxadmm.train.engine import require as require_training

#: Share of the samples that is held out where they decide how small a network may get: a tenth says too little.
_JUDGES: Final = 0.5


def compress(
    model: Source,
    *,
    data: object = None,
    calibrate: object = None,
    budget: Budget | Mapping[str, Any] | None = None,
    targets: Mapping[str, Share] | None = None,
    out: str | Path | None = None,
    test: object | None = None,
    expect_accuracy: Share | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    inputs: Mapping[str, object] | None = None,
    calibration: CalibrationOptions | Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    inexact: bool = False,
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
    progress: ProgressLike = SILENT,
    options: Mapping[str, str | int | float | bool | None] | None = None,
    shared: Shared | None = None,
) -> Compressed:
    """Prune a model while training it, remove what was pruned, prove it, retrain the rest, and measure.

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
        out: folder for ``model.onnx``, ``plan.json``, ``report.html``, ``report.json``, ``report.md`` and
            ``history.jsonl``; until they are complete, it holds the folder ``unfinished`` with the checkpoint. None
            writes nothing: the model is in what is returned.
        test: test data, used for the last line of the report and nothing else.
        expect_accuracy: least accuracy of the original on held-out data, ``0.9`` or ``"90%"``; None: more than guessing
            would have. Below it the run ends before anything takes long, and says what is usually wrong and would help;
            0 lets any original pass.
        recipe: how to train.
        preprocessing: what is done to stored values.
        inputs: values of inputs by name, array-like, the same for every sample and as the model reads them: one that
            has no batch must have its value here or in the data.
        calibration: how to calibrate.
        limits: how far a group may shrink.
        ignore: patterns of names of groups, layers or weights that must stay.
        inexact: also prune through operators that mix along the removed axis.
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
    if resume and out is None:
        raise OptionError("--resume", expected="an out folder", found="none", way_out="give the folder of that run")
    expected = None if expect_accuracy is None else parse_accuracy(expect_accuracy)
    goal = given_budget(budget)
    shares = {pattern: parse_share(share, option="--target") for pattern, share in (targets or {}).items()}
    chosen = given_or_usual(Recipe, recipe, "the recipe", "Recipe(epochs=5)")
    prepared = given_or_usual(
        Preprocessing, preprocessing, "the preprocessing", "Preprocessing(mean=[0.13], std=[0.31])"
    )
    calibrating = None
    if calibrate is not None or data is None:
        chosen, calibrating = _calibrating(data, calibrate, chosen, calibration)
    bounds = given_or_usual(Limits, limits, "the limits", "Limits(max_ratio=0.9)")
    timing = Timing(bench_batch, bench_threads) if bench else None
    if calibrating is None or calibrating.max_drop is None:
        refuse_contradictions(goal, shares, layer_wise=chosen.mode == "joint")
    elif goal is not None or is_none(calibrate):
        raise OptionError(
            "--max-drop",
            expected="samples and no budget: the least that keeps the promise is searched for",
            found="a budget" if goal is not None else "no samples",
            way_out="leave the budget out" if goal is not None else "give samples",
        )
    if int8 and is_none(calibrate):
        raise OptionError(
            "--int8",
            expected="samples, which say how far activations reach",
            found="--calibrate none",
            way_out="give some hundreds of samples",
        )
    with ExitStack() as stack:
        told_to = stack.enter_context(listening(progress))
        libraries = stack.enter_context(custom_operators(custom_ops))
        choices = Choices(
            budget=goal,
            targets=shares,
            inputs=dict(inputs or {}),
            limits=_with_simd_block(bounds),
            preprocessing=prepared,
            calibration=calibrating,
            recipe=chosen,
            ignore=tuple(ignore),
            inexact=inexact,
            simplified=simplified,
            seed=seed,
            input_shapes=shapes_as_text(input_shapes or {}) or None,
            custom_ops=tuple(sorted(library.sha256 for library in libraries)) or None,
            rules=rule_files() or None,
        )
        told: dict[str, Option] = {
            "model": describe_source(model),
            "data": describe_source(data),
            "calibrate": describe_source(calibrate),
            "test": describe_source(test),
            "expect_accuracy": expected,
            "out": None if out is None else str(out),
            "sparse": sparse,
            "single_file": single_file,
            "int8": int8,
            "fp16": fp16,
            "bench": bench,
            "bench_batch": bench_batch,
            "bench_threads": bench_threads if bench_threads is not None else this_machine().threads,
            "custom_ops": ", ".join(map(str, custom_ops)) or None,
            **(options or {}),
        }
        ending = Ending(sparse=sparse, single_file=single_file, int8=int8, fp16=fp16, timing=timing, options=told)
        run = Compression(opened(model, input_shapes), choices, Journal(told_to), ending, expected, shared or Shared())
        if calibrating is None or chosen.retrain_epochs:
            require_training()
        # The folder comes first: an old result in it is a matter of milliseconds, not to be found after minutes.
        folder = (
            None
            if out is None
            else stack.enter_context(
                OutputFolder(out, force=force, resume=resume, inputs=(model, data, calibrate, test))
            )
        )
        if folder is not None and resume:
            run.resume(folder.checkpoint)
        run.find()
        run.read(data if calibrating is None else calibrate, test)
        run.try_bytes()
        run.try_training()
        finished = run.finish(folder)
        forms = finished.variants
        return Compressed(
            finished.report, model=finished.model, plan=finished.plan, int8=forms.get("int8"), fp16=forms.get("fp16")
        )


def _calibrating(
    data: object, calibrate: object, recipe: Recipe, options: CalibrationOptions | Mapping[str, Any] | None
) -> tuple[Recipe, CalibrationOptions]:
    """Return recipe and options of a run that calibrates: the original is the only teacher, after the cut if at all."""
    if data is not None or calibrate is None:
        raise OptionError(
            "the data",
            expected="--data to train with, or --calibrate with samples alone",
            found="both" if data is not None else "none",
            way_out="give one of them",
        )
    if recipe.mode == "joint":
        raise OptionError(
            "--mode", expected="holistic with --calibrate", found="joint", way_out="leave --mode and --target out"
        )
    epochs = recipe.retrain_epochs if recipe.retrain_epochs is not None else recipe.epochs or 0
    chosen = given_or_usual(CalibrationOptions, options, "the calibration", 'CalibrationOptions(effort="best")')
    if chosen.max_drop is not None and recipe.held_out == Recipe.held_out:
        recipe = replace(recipe, held_out=_JUDGES)
    return replace(recipe, distillation=1.0, retrain_epochs=epochs), chosen


def describe_source(source: object) -> str | None:
    """Return how a report calls a model or data: by the path, or by what is in memory."""
    if source is None or isinstance(source, (str, Path)):
        return None if source is None else str(source)
    return f"in memory: {type(source).__name__}"


def _with_simd_block(limits: Limits) -> Limits:
    return limits if limits.round_to is not None else replace(limits, round_to=this_machine().simd_floats)
