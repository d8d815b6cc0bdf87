"""``onnxadmm compress``."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxadmm.cli.options import (
    Amounts,
    CacheOption,
    CropOption,
    CustomOpsOption,
    FeaturesOption,
    ForceOption,
    IgnoreOption,
    InexactOption,
    InputOption,
    InputShapeOption,
    JsonOption,
    KeepOption,
    MaxBadOption,
    MetricOption,
    ModelArgument,
    OutOption,
    QuietOption,
    RatioLimitOption,
    ResizeOption,
    RoundOption,
    RulesOption,
    SeedOption,
    SingleFileOption,
    SparseOption,
    counts,
    read_budget,
    read_inputs,
    read_numbers,
    read_shapes,
)
from onnxadmm.cli.report import print_next_steps, print_report
from onnxadmm.console import print_json, print_line, progress_of, stdout_console
from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import Budget
from onnxadmm.progress import Progress
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe

if TYPE_CHECKING:
    from onnxadmm.report.report import Report


@counts
def run(
    model: ModelArgument,
    out: OutOption,
    amounts: Amounts,
    data: Annotated[
        str | None, typer.Option("--data", help=".npz, .npy, SAMPLES,LABELS, class folders, a list, .tar or .parquet")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="samples without labels, or none, instead of --data: nothing trains"),
    ] = None,
    effort: Annotated[
        str, typer.Option("--effort", help="of a calibration: quick, normal or best")
    ] = CalibrationOptions.effort,
    memory: Annotated[
        str, typer.Option("--memory", help="that a calibration may take for statistics and activations")
    ] = CalibrationOptions.memory,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", help="instead of a budget: points of held-out accuracy that may be lost, or 2%"),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="what --max-drop leaves the least of: macs, params, size or latency")
    ] = CalibrationOptions.by,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="FILE", help="an .onnx file that teaches in place of the original"),
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="test data, for the last line of the report")] = None,
    expect_accuracy: Annotated[
        str | None,
        typer.Option(
            "--expect-accuracy", help="least accuracy of the original: 0.9 or 90% [more than guessing]; 0: any"
        ),
    ] = None,
    connections: Annotated[
        str | None, typer.Option("--connections", help="share of the remaining weights that stay non-zero")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="GLOB=SHARE", help="units that stay, for --mode joint")
    ] = None,
    connection_target: Annotated[
        list[str] | None,
        typer.Option("--connection-target", metavar="GLOB=SHARE", help="connections that stay, for --mode joint"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="lenet5-paper: the paper's settings for LeNet-5 and --mode"),
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="subtracted after scaling: 0.13 or 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option("--std", help="divided by after that")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="factor on stored values [1/255 for bytes]")] = None,
    augment: Annotated[str, typer.Option("--augment", help="flip,crop4 or rrc224,flip and the like")] = "",
    resize: ResizeOption = None,
    crop: CropOption = None,
    max_bad: MaxBadOption = Preprocessing.max_bad,
    cache: CacheOption = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="cross-entropy, mse or bce [cross-entropy; with --calibrate by the outputs]"),
    ] = None,
    metric: MetricOption = None,
    distillation: Annotated[
        float, typer.Option("--distillation", help="weight of the teacher; 1 needs no labels")
    ] = Recipe.distillation,
    temperature: Annotated[float, typer.Option("--temperature", help="of the teacher")] = Recipe.temperature,
    output: Annotated[
        str | None, typer.Option("--output", metavar="NAME", help="output that the loss is taken of, of several")
    ] = None,
    class_axis: Annotated[
        int | None, typer.Option("--class-axis", help="axis of the output along which the classes lie [found]")
    ] = None,
    ignore_index: Annotated[
        int | None, typer.Option("--ignore-index", help="label that means none [-100, and 255 where it is no class]")
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option("--class-weights", help="what the classes count: balanced, numbers as 1,1,5, or a file of them"),
    ] = None,
    sample_weights: Annotated[
        str | None,
        typer.Option("--sample-weights", metavar="NAME", help="array of the data, or .npy file: what samples count"),
    ] = None,
    inputs: InputOption = None,
    mode: Annotated[str, typer.Option("--mode", help="holistic (one budget) or joint (per layer)")] = Recipe.mode,
    method: Annotated[
        str, typer.Option("--method", help="how units are chosen: auto, calibrated, admm, paper")
    ] = Recipe.method,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="passes over the data while a training chooses units")
    ] = None,
    retrain_epochs: Annotated[int | None, typer.Option("--retrain-epochs", help="passes while retraining")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="samples per step")] = Recipe.batch_size,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", "--lr", help="highest while a training chooses units [1e-3, or what the network bears]"
        ),
    ] = None,
    retrain_learning_rate: Annotated[
        float | None,
        typer.Option(
            "--retrain-learning-rate",
            "--retrain-lr",
            help="highest while retraining [5e-3, deep networks 2e-3, or what the network bears]",
        ),
    ] = None,
    norm: Annotated[
        str, typer.Option("--norm", help="train with BatchNormalization: auto (deep networks), keep or restore")
    ] = Recipe.norm,
    engine: Annotated[
        str, typer.Option("--engine", help="who computes gradients: auto, training (its build) or plain (any runtime)")
    ] = Recipe.engine,
    precision: Annotated[
        str,
        typer.Option("--precision", help="of matrix products while training: float32, or bf16 (ARM with BF16)"),
    ] = Recipe.precision,
    threads: Annotated[int, typer.Option("--threads", help="of one operator while training")] = Recipe.threads,
    workers: Annotated[
        str, typer.Option("--workers", help="processes that share each batch: a number, or auto: as many as pay")
    ] = "auto",
    accumulate: Annotated[
        int, typer.Option("--accumulate", help="parts each of them takes one after the other, to save memory")
    ] = Recipe.accumulate,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="machines that train together, or share a calibrated sweep: local:N, ray://HOST:PORT or auto",
        ),
    ] = None,
    local_steps: Annotated[
        int, typer.Option("--local-steps", help="most steps of a machine between two rounds in which all agree")
    ] = Recipe.local_steps,
    freeze_untrainable: Annotated[
        bool,
        typer.Option("--freeze-untrainable", help="keep weights behind operators without a gradient"),
    ] = False,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="after a training that chooses units, take the original's weights, fitted anew, where they are better "
            "[after one of fewer than 2,200 steps]",
        ),
    ] = None,
    simplify: Annotated[bool, typer.Option("--simplify/--no-simplify", help="simplify the model first")] = True,
    sparse: SparseOption = True,
    single_file: SingleFileOption = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="write the result in bytes as well, what bears it: model.int8.onnx")
    ] = False,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="write it with weights in 16 bits as well: model.fp16.onnx, half of the bytes"),
    ] = False,
    ignore: IgnoreOption = None,
    keep_at_least: KeepOption = None,
    max_ratio: RatioLimitOption = "1",
    round_to: RoundOption = None,
    inexact: InexactOption = False,
    features: FeaturesOption = False,
    seed: SeedOption = 0,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    bench: Annotated[bool, typer.Option("--bench/--no-bench", help="time original and result in the end")] = True,
    bench_batch: Annotated[int, typer.Option("--bench-batch", help="the larger batch size beside 1")] = 64,
    bench_threads: Annotated[
        int | None, typer.Option("--bench-threads", help="of one operator while timing [every core there is]")
    ] = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on from where the run in --out was interrupted")] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", help="shorten the epochs until the run fits this time"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="the same as --max-minutes 5")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what the run would take, and end before it begins")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose what goes, remove it, prove that, train the rest, measure."""
    given = dict(locals())
    from onnxadmm.compress import compress

    budget = read_budget(amounts, connections)
    if dry_run:
        _foreseen(given, budget)
        return
    with progress_of(quiet=quiet) as progress:
        if max_drop is not None and calibrate is None:
            report = _searched(given, budget, progress)
        else:
            report = compress(**arguments(given), budget=budget, progress=progress).report
    print_report(report, as_json=as_json)
    if not as_json:
        print_next_steps(report, out)


def _foreseen(given: Mapping[str, Any], budget: Budget | None) -> None:
    """Print what the run would take."""
    from onnxadmm.compress import forecast
    from onnxadmm.report.codec import encode

    if given["max_drop"] is not None and given["calibrate"] is None:
        raise OptionError(
            "--dry-run", expected="one run", found="a search with --max-drop", way_out="give a budget instead"
        )
    with progress_of(quiet=given["quiet"]) as progress:
        found = forecast(**arguments(given), budget=budget, progress=progress)
    if given["as_json"]:
        print_json({**encode(found), "seconds": found.seconds})
    else:
        print_line(found.describe(), stdout_console())


def _searched(given: Mapping[str, Any], budget: Budget | None, progress: Progress) -> "Report":
    """Search for the smallest network that training makes and that keeps a promise; return its report."""
    from onnxadmm.report.reading import read_report
    from onnxadmm.search import search

    settled = any(given[name] for name in ("target", "connection_target", "preset")) or given["mode"] != Recipe.mode
    if given["data"] is None or settled:
        raise OptionError(
            "--max-drop",
            expected="--data or --calibrate, and no targets per layer or preset",
            found="no data" if given["data"] is None else "--mode joint, a target or --preset",
            way_out="give training data, or samples with --calibrate",
        )
    taken = arguments(given)
    for name in ("calibrate", "targets", "connection_targets", "preset"):
        del taken[name]
    search(**taken, max_drop=given["max_drop"], by=given["by"], budget=budget, progress=progress)
    return read_report(given["out"])


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``compress`` takes, but for the budget and who is told, from the parameters of ``run`` by name.

    Raises:
        OptionError: a value cannot be used.
    """
    from onnxadmm.plan.drop import parse_drop
    from onnxadmm.plan.problem import Limits

    asked = SimpleNamespace(**given)
    recipe = Recipe(
        loss=asked.loss,
        metric=asked.metric,
        distillation=asked.distillation,
        temperature=asked.temperature,
        output=asked.output,
        class_axis=asked.class_axis,
        ignore_index=asked.ignore_index,
        class_weights=asked.class_weights,
        sample_weights=asked.sample_weights,
        mode=asked.mode,
        method=asked.method,
        epochs=asked.epochs,
        retrain_epochs=asked.retrain_epochs,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        retrain_learning_rate=asked.retrain_learning_rate,
        freeze_untrainable=asked.freeze_untrainable,
        refit=asked.refit,
        norm=asked.norm,
        engine=asked.engine,
        precision=asked.precision,
        threads=asked.threads,
        workers=_workers(asked.workers),
        accumulate=asked.accumulate,
        cluster=asked.cluster,
        local_steps=asked.local_steps,
    )
    if asked.cluster is None and asked.local_steps != Recipe.local_steps:
        raise OptionError(
            "--local-steps", expected="--cluster, which it is about", found="none", way_out="give that as well"
        )
    if asked.max_drop is None and asked.by != CalibrationOptions.by:
        raise OptionError(
            "--by", expected="--max-drop, which it is about", found="none", way_out="give that, or a budget alone"
        )
    calibration = CalibrationOptions(asked.effort, asked.memory)
    if asked.max_drop is not None and asked.calibrate is not None:
        calibration = replace(calibration, max_drop=parse_drop(asked.max_drop).asked, by=asked.by)
    preprocessing = Preprocessing(
        mean=read_numbers("--mean", asked.mean),
        std=read_numbers("--std", asked.std),
        scale=asked.scale,
        augment=asked.augment,
        resize=asked.resize,
        crop=asked.crop,
        max_bad=asked.max_bad,
        cache=asked.cache,
    )
    return {
        "model": asked.model,
        "data": asked.data,
        "calibrate": asked.calibrate,
        "calibration": calibration,
        "test": asked.test,
        "teacher": asked.teacher,
        "expect_accuracy": asked.expect_accuracy,
        "targets": _targets("--target", asked.target),
        "connection_targets": _targets("--connection-target", asked.connection_target),
        "preset": asked.preset,
        "out": asked.out,
        "recipe": recipe,
        "preprocessing": preprocessing,
        "inputs": read_inputs(asked.inputs),
        "limits": Limits(asked.keep_at_least, asked.max_ratio, asked.round_to),
        "ignore": asked.ignore or (),
        "inexact": asked.inexact,
        "features": asked.features,
        "simplified": asked.simplify,
        "sparse": asked.sparse,
        "single_file": asked.single_file,
        "int8": asked.int8,
        "fp16": asked.fp16,
        "seed": asked.seed,
        "input_shapes": read_shapes(asked.input_shape),
        "custom_ops": asked.custom_ops or (),
        "bench": asked.bench,
        "bench_batch": asked.bench_batch,
        "bench_threads": asked.bench_threads,
        "force": asked.force,
        "resume": asked.resume,
        "max_minutes": asked.max_minutes,
        "quick": asked.quick,
    }


def _targets(option: str, pairs: list[str] | None) -> dict[str, str]:
    targets: dict[str, str] = {}
    for pair in pairs or []:
        pattern, _, share = pair.rpartition("=")
        if not pattern:
            raise OptionError(option, expected="GLOB=SHARE", found=repr(pair), way_out="write e.g. 'conv*=0.5'")
        targets[pattern] = share
    return targets


def _workers(text: str) -> int | None:
    """The number of workers, None for ``auto``."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise OptionError(
            "--workers", expected="a number or auto", found=repr(text), way_out="auto is usual"
        ) from error
