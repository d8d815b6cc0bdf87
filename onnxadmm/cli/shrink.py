"""``onnxadmm shrink``."""

from typing import Annotated

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    InputOption,
    InputShapeOption,
    ModelArgument,
    OutputOption,
    PlanArgument,
    RulesOption,
    SeedOption,
    SingleFileOption,
    SparseOption,
    read_inputs,
    read_shapes,
)
from onnxadmm.cli.verify import noise_sentences, warn_of_limits
from onnxadmm.console import print_line, stderr_console, stdout_console
from onnxadmm.files import refuse_existing


def run(
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    sparse: SparseOption = True,
    single_file: SingleFileOption = False,
    check: Annotated[bool, typer.Option("--verify/--no-verify", help="prove it before writing anything")] = True,
    inputs: InputOption = None,
    seed: SeedOption = 0,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    force: ForceOption = False,
) -> None:
    """Write the model without what the plan removes, once it is proven to compute what the masked original does."""
    from onnxadmm.plan.plan import Plan
    from onnxadmm.surgery import shrink_to_file

    refuse_existing(output, force=force)
    size, proof = shrink_to_file(
        model,
        Plan.read(plan),
        output,
        sparse=sparse,
        single_file=single_file,
        check=check,
        seed=seed,
        inputs=read_inputs(inputs),
        force=force,
        input_shapes=read_shapes(input_shape),
        custom_ops=custom_ops or (),
    )
    if proof is not None:
        warn_of_limits(proof)
        for line in noise_sentences(proof):
            print_line(line, stderr_console())
        if not proof.passed:
            print_line(
                f"Warning: pruned through operators that mix channels, so it computes something else "
                f"({proof.snr_db:.1f} dB); retraining repairs it, inspect --inexact names them.",
                stderr_console(),
            )
    print_line(f"{output}: {size:,} bytes", stdout_console())
