"""``onnxadmm verify``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    PlanArgument,
    RulesOption,
    SeedOption,
)
from onnxadmm.console import print_json, print_line, stderr_console, stdout_console
from onnxadmm.errors import VerificationError

if TYPE_CHECKING:
    from onnxadmm.plan.plan import Plan
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
    seed: SeedOption = 0,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that the shrunk model computes what the masked original computes."""
    from onnxadmm.plan.plan import Plan
    from onnxadmm.rewrite.verify import require
    from onnxadmm.surgery import verify as compare

    planned = Plan.read(plan)
    verification = compare(model, shrunk, planned, seed=seed, custom_ops=custom_ops or ())
    if narrow is not None and not verification.passed:
        print_line(
            _narrow(model, planned, narrow, force=force, seed=seed, custom_ops=custom_ops or ()), stderr_console()
        )
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


def warn_if_blind(verification: "Verification") -> None:
    """Say that outputs which hardly change prove little."""
    if verification.blind:
        names = ", ".join(verification.blind)
        print_line(f"Warning: {names} hardly depends on the input, so this says little about it.", stderr_console())


def _narrow(model: Path, plan: "Plan", folder: Path, *, force: bool, seed: int, custom_ops: Sequence[Path]) -> str:
    from onnxadmm.bisect import bisect, write_culprit

    culprit = bisect(model, plan, seed=seed, custom_ops=custom_ops)
    if culprit is None:
        return "Every group of the plan passes on its own: the shrunk model was not made by this plan and version."
    model_path, plan_path = write_culprit(culprit, folder, force=force)
    shows = "shows" if culprit.reproduced else "did not show"
    return (
        f"Group {culprit.group!r} fails when unit {', '.join(map(str, culprit.units))} goes: "
        f"{culprit.verification.first_difference}. {model_path} ({culprit.nodes} nodes, random weights) with "
        f"{plan_path} {shows} the same."
    )
