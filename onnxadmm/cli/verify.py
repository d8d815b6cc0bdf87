"""``onnxadmm verify``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxadmm.bisect import Culprit, bisect, write_culprit
from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    InputOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    PlanArgument,
    RulesOption,
    SeedOption,
    read_inputs,
    read_shapes,
)
from onnxadmm.console import print_json, print_line, stderr_console, stdout_console
from onnxadmm.errors import VerificationError
from onnxadmm.plan.plan import Plan
from onnxadmm.rewrite.verify import Verification, require
from onnxadmm.surgery import verify as compare


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
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that the shrunk model computes what the masked original computes."""
    planned = Plan.read(plan)
    shapes, given = read_shapes(input_shape), read_inputs(inputs)
    verification = compare(
        model, shrunk, planned, inputs=given, seed=seed, input_shapes=shapes, custom_ops=custom_ops or ()
    )
    if narrow is not None and not verification.passed:
        culprit = bisect(model, planned, seed=seed, input_shapes=shapes, custom_ops=custom_ops or ())
        print_line(_narrowed(culprit, narrow, force=force), stderr_console())
    if as_json:
        print_json(verification)
        if not verification.passed:
            raise typer.Exit(VerificationError.exit_status)
        return
    warn_if_blind(require(verification))
    print_line(
        f"{shrunk}: equal to the masked original on {verification.inputs_tried} inputs, "
        f"{verification.snr_db:.1f} dB (at least {verification.threshold_db:g} dB asked), "
        f"largest absolute error {verification.max_abs_error:.2g}",
        stdout_console(),
    )


def warn_if_blind(verification: Verification) -> None:
    """Say that outputs which hardly change prove little."""
    if verification.blind:
        names = ", ".join(verification.blind)
        print_line(f"Warning: {names} hardly depends on the input, so this says little about it.", stderr_console())


def _narrowed(culprit: Culprit | None, folder: Path, *, force: bool) -> str:
    if culprit is None:
        return "Every group of the plan passes on its own: the shrunk model was not made by this plan and version."
    model_path, plan_path = write_culprit(culprit, folder, force=force)
    shows = "shows" if culprit.reproduced else "did not show"
    return (
        f"Group {culprit.group!r} fails when unit {', '.join(map(str, culprit.units))} goes: "
        f"{culprit.verification.first_difference}. {model_path} ({culprit.nodes} nodes, random weights) with "
        f"{plan_path} {shows} the same."
    )
