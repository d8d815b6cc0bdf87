"""``onnxadmm shrink``."""

from typing import Annotated

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    ModelArgument,
    OutputOption,
    PlanArgument,
    RulesOption,
    SeedOption,
    SparseOption,
)
from onnxadmm.cli.verify import warn_if_blind
from onnxadmm.console import print_line, stderr_console, stdout_console
from onnxadmm.files import refuse_existing, refuse_input
from onnxadmm.plan.plan import Plan
from onnxadmm.surgery import shrink_to_file


def run(
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    sparse: SparseOption = True,
    check: Annotated[bool, typer.Option("--verify/--no-verify", help="prove it before writing anything")] = True,
    seed: SeedOption = 0,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    force: ForceOption = False,
) -> None:
    """Write the model without what the plan removes, once it is proven to compute what the masked original does."""
    refuse_input(output, model, plan)
    refuse_existing(output, force=force)
    size, proof = shrink_to_file(
        model,
        Plan.read(plan),
        output,
        sparse=sparse,
        check=check,
        seed=seed,
        force=force,
        custom_ops=custom_ops or (),
    )
    if proof is not None:
        warn_if_blind(proof)
        if not proof.passed:
            print_line(
                f"Warning: pruned through operators that mix channels, so it computes something else "
                f"({proof.snr_db:.1f} dB); retraining repairs it, inspect --inexact names them.",
                stderr_console(),
            )
    print_line(f"{output}: {size:,} bytes", stdout_console())
