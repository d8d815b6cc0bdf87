"""The command line: verbs and options, no logic."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxadmm import options, surgery
from onnxadmm.bench.latency import measure_latency
from onnxadmm.bisect import bisect, write_culprit
from onnxadmm.compress import compress
from onnxadmm.console import ConsoleProgress, print_error, print_json, print_line, stderr_console, stdout_console
from onnxadmm.demo import require_bar, run_demo
from onnxadmm.doctor import diagnose, diagnosis_view
from onnxadmm.doctor import to_document as diagnosis_document
from onnxadmm.errors import OnnxAdmmError, OptionError, VerificationError
from onnxadmm.graph.model import load, save
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.plan import Plan
from onnxadmm.plan.problem import Limits
from onnxadmm.recipe import Preprocessing, Recipe
from onnxadmm.report.drawing import draw_groups, page_of_groups
from onnxadmm.report.inspection import inspect_units, inspection_view
from onnxadmm.report.report import read_report, to_document
from onnxadmm.report.table import latency_table, report_view
from onnxadmm.report.words import plural
from onnxadmm.report.writer import write_text
from onnxadmm.rewrite.verify import Verification, require

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make an ONNX model smaller and faster: prune it while training it, remove what was pruned, prove it.",
)


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Read by ``main`` before typer runs; declared here so that ``--help`` shows it."""


@app.command()
def inspect(
    model: options.ModelArgument,
    ignore: options.IgnoreOption = None,
    inexact: options.InexactOption = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="draw the groups into this file")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="the same as a page")] = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Print the groups that may shrink, and what locks the others."""
    for path in (svg, html):
        if path is not None:
            _refuse_existing(path, force=force)
    units = surgery.find_groups(model, inexact=inexact, ignore=ignore or ())
    inspection = inspect_units(model.name, units)
    if svg is not None:
        write_text(svg, draw_groups(inspection, units))
    if html is not None:
        write_text(html, page_of_groups(inspection, units))
    if as_json:
        print_json(inspection)
    else:
        stdout_console().print(inspection_view(inspection))


@app.command("compress")
def compress_command(
    context: typer.Context,
    model: options.ModelArgument,
    data: Annotated[str, typer.Option("--data", help=".npz, IMAGES,LABELS in IDX, or a folder of class folders")],
    out: Annotated[Path, typer.Option("--out", help="folder for the results")],
    test: Annotated[str | None, typer.Option("--test", help="test data, for the last line of the report")] = None,
    macs: options.MacsOption = None,
    params: options.ParamsOption = None,
    connections: Annotated[
        float | None, typer.Option("--connections", help="share of the remaining weights that stay non-zero")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="GLOB=SHARE", help="units that stay, for --mode joint")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="subtracted after scaling: 0.13 or 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option("--std", help="divided by after that")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="factor on stored values [1/255 for bytes]")] = None,
    augment: Annotated[str, typer.Option("--augment", help="flip,crop4 and the like")] = "",
    loss: Annotated[str, typer.Option("--loss", help="cross-entropy, mse or bce")] = Recipe.loss,
    distillation: Annotated[
        float, typer.Option("--distillation", help="weight of the original as teacher; 1 needs no labels")
    ] = Recipe.distillation,
    temperature: Annotated[float, typer.Option("--temperature", help="of the teacher")] = Recipe.temperature,
    mode: Annotated[str, typer.Option("--mode", help="holistic (one budget) or joint (per layer)")] = Recipe.mode,
    method: Annotated[str, typer.Option("--method", help="default or paper")] = Recipe.method,
    epochs: Annotated[int | None, typer.Option("--epochs", help="passes over the data while pruning")] = None,
    retrain_epochs: Annotated[int | None, typer.Option("--retrain-epochs", help="passes while retraining")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="samples per step")] = Recipe.batch_size,
    learning_rate: Annotated[float, typer.Option("--lr", help="highest while pruning")] = Recipe.learning_rate,
    retrain_learning_rate: Annotated[
        float, typer.Option("--retrain-lr", help="highest while retraining")
    ] = Recipe.retrain_learning_rate,
    threads: Annotated[int, typer.Option("--threads", help="of one operator while training")] = Recipe.threads,
    freeze_untrainable: Annotated[
        bool,
        typer.Option("--freeze-untrainable", help="keep weights behind operators without a gradient"),
    ] = False,
    simplify: Annotated[bool, typer.Option("--simplify/--no-simplify", help="simplify the model first")] = True,
    sparse: options.SparseOption = True,
    ignore: options.IgnoreOption = None,
    keep_at_least: options.KeepOption = 1,
    max_ratio: options.RatioLimitOption = 1.0,
    round_to: options.RoundOption = None,
    inexact: options.InexactOption = False,
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Prune while training, remove, prove, retrain, measure."""
    given = {name: _plain(value) for name, value in context.params.items() if value is not None}
    recipe = Recipe(
        loss=loss,  # type: ignore[arg-type]  # Recipe checks the words and says what it expects
        distillation=distillation,
        temperature=temperature,
        mode=mode,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
        epochs=epochs,
        retrain_epochs=retrain_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        retrain_learning_rate=retrain_learning_rate,
        freeze_untrainable=freeze_untrainable,
        threads=threads,
    )
    with ConsoleProgress(stderr_console()) as progress:
        report = compress(
            model,
            data=data,
            test=test,
            budget=_budget(macs, params, connections),
            targets=_targets(target),
            out=out,
            recipe=recipe,
            preprocessing=Preprocessing(
                mean=_numbers("--mean", mean), std=_numbers("--std", std), scale=scale, augment=augment
            ),
            limits=Limits(keep_at_least, max_ratio, round_to),
            ignore=ignore or (),
            inexact=inexact,
            simplified=simplify,
            sparse=sparse,
            seed=seed,
            force=force,
            progress=progress,
            options=given,
        )
    if as_json:
        print_json(to_document(report))
    else:
        stdout_console().print(report_view(report))


@app.command("plan")
def plan_command(
    model: options.ModelArgument,
    output: options.OutputOption,
    macs: options.MacsOption = None,
    params: options.ParamsOption = None,
    ratio: Annotated[float | None, typer.Option("--ratio", help="share of the units of every group that goes")] = None,
    by: Annotated[str, typer.Option("--by", help="magnitude or random")] = "magnitude",
    ignore: options.IgnoreOption = None,
    keep_at_least: options.KeepOption = 1,
    max_ratio: options.RatioLimitOption = 1.0,
    round_to: options.RoundOption = None,
    inexact: options.InexactOption = False,
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Choose what goes without training."""
    _refuse_existing(output, force=force)
    plan = surgery.rank(
        model,
        _budget(macs, params, None),
        ratio=ratio,
        by=by,  # type: ignore[arg-type]  # rank checks the word and says what it expects
        limits=Limits(keep_at_least, max_ratio, round_to),
        ignore=ignore or (),
        inexact=inexact,
        seed=seed,
    )
    text = plan.to_json()
    write_text(output, text)
    if as_json:
        print_json(json.loads(text))
    else:
        units = sum(group.units for group in plan.groups)
        print_line(
            f"{output}: {plan.removed_count} of {units} units go, from {plural(len(plan.groups), 'group')}",
            stdout_console(),
        )


@app.command("mask")
def mask_command(
    model: options.ModelArgument,
    plan: options.PlanArgument,
    output: options.OutputOption,
    force: options.ForceOption = False,
) -> None:
    """Write the masked original: the same nodes, the readers of removed units zero."""
    _write_model(surgery.mask(model, Plan.read(plan)), output, force=force, sparse=False)


@app.command("shrink")
def shrink_command(
    model: options.ModelArgument,
    plan: options.PlanArgument,
    output: options.OutputOption,
    sparse: options.SparseOption = True,
    check: Annotated[bool, typer.Option("--verify/--no-verify", help="prove it before writing anything")] = True,
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
) -> None:
    """Write the model without what the plan removes, once it is proven to compute what the masked original does."""
    _refuse_existing(output, force=force)
    size, proof = surgery.shrink_to_file(
        model, Plan.read(plan), output, sparse=sparse, check=check, seed=seed, force=force
    )
    if proof is not None:
        _warn_if_blind(proof)
        if not proof.passed:
            print_line(
                f"Warning: pruned through operators that mix channels, so it computes something else "
                f"({proof.snr_db:.1f} dB); retraining repairs it, inspect --inexact names them.",
                stderr_console(),
            )
    print_line(f"{output}: {size:,} bytes", stdout_console())


@app.command("verify")
def verify_command(
    model: options.ModelArgument,
    shrunk: Annotated[Path, typer.Argument(metavar="SHRUNK", help="what shrink wrote")],
    plan: options.PlanArgument,
    narrow: Annotated[
        Path | None,
        typer.Option(
            "--bisect", metavar="FOLDER", help="when it fails, write a small model that shows why, without your weights"
        ),
    ] = None,
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Check that the shrunk model computes what the masked original computes."""
    planned = Plan.read(plan)
    verification = surgery.verify(model, shrunk, planned, seed=seed)
    if narrow is not None and not verification.passed:
        print_line(_narrow(model, planned, narrow, force=force, seed=seed), stderr_console())
    if as_json:
        print_json(verification)
        if not verification.passed:
            raise typer.Exit(VerificationError.exit_status)
        return
    _warn_if_blind(require(verification))
    print_line(
        f"{shrunk}: equal to the masked original on {verification.inputs_tried} inputs, "
        f"{verification.snr_db:.1f} dB (at least {verification.threshold_db:g} dB asked), "
        f"largest absolute error {verification.max_abs_error:.2g}",
        stdout_console(),
    )


@app.command("bench")
def bench_command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="the first one is the yardstick")],
    batch: Annotated[int, typer.Option("--batch", help="the larger batch size beside 1")] = 64,
    threads: Annotated[int, typer.Option("--threads", help="of one operator")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="time per batch size")] = 3.0,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Time models side by side on this CPU."""
    loaded = [load(path) for path in models]
    with ConsoleProgress(stderr_console()) as progress:
        latencies = measure_latency(
            loaded,
            names=[str(path) for path in models],
            large=batch,
            threads=threads,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json(latencies)
    else:
        stdout_console().print(latency_table(latencies))


@app.command("report")
def report_command(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="a report.json")], as_json: options.JsonOption = False
) -> None:
    """Print the report of an earlier run."""
    report = read_report(path)
    if as_json:
        print_json(to_document(report))
    else:
        stdout_console().print(report_view(report))


@app.command()
def doctor(as_json: options.JsonOption = False) -> None:
    """Say what is installed, and whether training really works."""
    diagnosis = diagnose()
    if as_json:
        print_json(diagnosis_document(diagnosis))
    else:
        stdout_console().print(diagnosis_view(diagnosis))
    if not diagnosis.ok:
        raise typer.Exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="folder for the results")] = Path("out/demo"),
    seed: options.SeedOption = 0,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Compress a small network for handwritten digits that comes with the package."""
    with ConsoleProgress(stderr_console()) as progress:
        report = run_demo(out, seed=seed, force=force, progress=progress)
    if as_json:
        print_json(to_document(report))
    else:
        stdout_console().print(report_view(report))
    require_bar(report)


def _warn_if_blind(verification: Verification) -> None:
    if verification.blind:
        names = ", ".join(verification.blind)
        print_line(f"Warning: {names} hardly depends on the input, so this says little about it.", stderr_console())


def _narrow(model: Path, plan: Plan, folder: Path, *, force: bool, seed: int) -> str:
    culprit = bisect(model, plan, seed=seed)
    if culprit is None:
        return "Every group of the plan passes on its own: the shrunk model was not made by this plan and version."
    model_path, plan_path = write_culprit(culprit, folder, overwrite=force)
    shows = "shows" if culprit.reproduced else "did not show"
    return (
        f"Group {culprit.group!r} fails when unit {', '.join(map(str, culprit.units))} goes: "
        f"{culprit.verification.first_difference}. {model_path} ({culprit.nodes} nodes, random weights) with "
        f"{plan_path} {shows} the same."
    )


def _budget(macs: str | None, params: str | None, connections: float | None) -> Budget | None:
    if macs is None and params is None and connections is None:
        return None
    return Budget(macs=macs, params=params, connections=connections)


def _targets(pairs: list[str] | None) -> dict[str, float]:
    targets: dict[str, float] = {}
    for pair in pairs or []:
        pattern, _, share = pair.rpartition("=")
        numbers = _numbers("--target", share) if pattern else None
        if numbers is None or len(numbers) != 1:
            raise OptionError("--target", expected="GLOB=SHARE", found=repr(pair), way_out="write e.g. 'conv*=0.5'")
        targets[pattern] = numbers[0]
    return targets


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(
            option, expected="numbers separated by commas", found=repr(text), way_out="write e.g. 0.49,0.48,0.45"
        ) from error


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _refuse_existing(path: Path, *, force: bool) -> None:
    # os.path and not pathlib: a name that the file system cannot hold is refused when it is written.
    if os.path.exists(path) and not force:
        raise OptionError(
            str(path), expected="a new file", found="an existing one", way_out="choose another name, or use --force"
        )


def _write_model(model: Any, output: Path, *, force: bool, sparse: bool) -> None:
    size = save(model, output, sparse=sparse, overwrite=force)
    print_line(f"{output}: {size:,} bytes", stdout_console())


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 the input or the options are wrong; 3 nothing to prune, or the budget is out of reach; 4 verification
    failed; 1 a defect of ours.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], prog_name="onnxadmm")
    except SystemExit as stop:
        # typer ends every command this way: 0, 2 for a wrong option, or the status of a typer.Exit.
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except OnnxAdmmError as error:
        if debug:
            traceback.print_exc()
        print_error(error, stderr_console())
        return error.exit_status
    except Exception as error:
        if debug:
            traceback.print_exc()
        defect = f"Error: a defect of onnxadmm: {type(error).__name__}: {error}; use --debug to see where"
        print_line(defect, stderr_console())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
