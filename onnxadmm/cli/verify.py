"""``onnxadmm verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    InputOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    PlanArgument,
    QuietOption,
    RulesOption,
    SeedOption,
    read_inputs,
    read_shapes,
)
from onnxadmm.console import print_json, print_line, progress_of, stderr_console, stdout_console
from onnxadmm.errors import VerificationError

if TYPE_CHECKING:
    from onnxadmm.bisect import Culprit
    from onnxadmm.rewrite.structure import Retrained
    from onnxadmm.rewrite.verify import Verification


def run(
    model: ModelArgument,
    shrunk: Annotated[Path, typer.Argument(metavar="SHRUNK", help="what shrink wrote")],
    plan: PlanArgument,
    narrow: Annotated[
        Path | None,
        typer.Option(
            "--bisect", metavar="FOLDER", help="when it fails, write a small model that shows why, without your weights"
        ),
    ] = None,
    inputs: InputOption = None,
    seed: SeedOption = 0,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that the shrunk model computes what the masked original computes, or its structure if it was retrained."""
    from onnxadmm.plan.plan import Plan
    from onnxadmm.rewrite.verify import require
    from onnxadmm.surgery import verify as compare

    planned = Plan.read(plan)
    shapes, given = read_shapes(input_shape), read_inputs(inputs)
    named: dict[str, Any] = {"inputs": given, "seed": seed, "input_shapes": shapes, "custom_ops": custom_ops or ()}
    with progress_of(quiet=quiet) as progress:
        verification = compare(model, shrunk, planned, **named, progress=progress)
    fits = verification.passed or verification.retrained is not None
    if narrow is not None and not fits:
        from onnxadmm.bisect import bisect

        culprit = bisect(model, planned, **named)
        print_line(_narrowed(culprit, narrow, force=force), stderr_console())
    if as_json:
        print_json(verification)
        if not fits:
            raise typer.Exit(VerificationError.exit_status)
        return
    if verification.retrained is not None:
        print_line(f"{shrunk}: {_about_retraining(verification.retrained, verification.snr_db)}", stdout_console())
        return
    warn_of_limits(require(verification))
    print_line(
        f"{shrunk}: equal to the masked original on {verification.inputs_tried} inputs, "
        f"{verification.snr_db:.1f} dB (at least {verification.threshold_db:g} dB asked), "
        f"largest absolute error {verification.max_abs_error:.2g}",
        stdout_console(),
    )
    for line in noise_sentences(verification):
        print_line(line, stdout_console())


def _about_retraining(found: "Retrained", snr_db: float) -> str:
    record = "its metadata record the same removals" if found.recorded else "its metadata say nothing"
    return (
        f"retrained after the cut, {found.changed} of {found.weights} weights differ. Proven: the structure is what "
        f"the plan leaves, {found.nodes} nodes and every weight's type and shape, and {record}. Not proven: the "
        f"numbers ({snr_db:.1f} dB); compress and shrink prove the cut before retraining, measure the accuracy on data."
    )


def noise_sentences(verification: "Verification") -> list[str]:
    """Return a sentence for each output that passed as no further off than rounding."""
    return [f"Within rounding: output {line}." for line in verification.within_noise]


def warn_of_limits(verification: "Verification") -> None:
    """Say that outputs which hardly change prove little, and that what draws at random was held still."""
    if verification.blind:
        names = ", ".join(verification.blind)
        print_line(f"Warning: {names} hardly depends on the input, so this says little about it.", stderr_console())
    if verification.held_still:
        from onnxadmm.graph.still import about_drawing

        print_line(f"Warning: {about_drawing(verification.held_still)}", stderr_console())


def _narrowed(culprit: "Culprit | None", folder: Path, *, force: bool) -> str:
    if culprit is None:
        return "Every group of the plan passes on its own: the shrunk model was not made by this plan and version."
    from onnxadmm.bisect import write_culprit

    model_path, plan_path = write_culprit(culprit, folder, force=force)
    shows = "shows" if culprit.reproduced else "did not show"
    return (
        f"Group {culprit.group!r} fails when unit {', '.join(map(str, culprit.units))} goes: "
        f"{culprit.verification.first_difference}. {model_path} ({culprit.nodes} nodes, random weights) with "
        f"{plan_path} {shows} the same."
    )
