"""``onnxadmm plan``."""

import json
from typing import Annotated

import typer

from onnxadmm.cli.options import (
    Amounts,
    CustomOpsOption,
    FeaturesOption,
    ForceOption,
    IgnoreOption,
    InexactOption,
    InputShapeOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    OutputOption,
    QuietOption,
    RatioLimitOption,
    RoundOption,
    RulesOption,
    SeedOption,
    counts,
    read_budget,
    read_shapes,
)
from onnxadmm.console import print_json, print_line, progress_of, stdout_console
from onnxadmm.files import refuse_existing, refuse_input
from onnxadmm.report.words import plural


@counts
def run(
    model: ModelArgument,
    output: OutputOption,
    amounts: Amounts,
    ratio: Annotated[str | None, typer.Option("--ratio", help="share of the units of every group that goes")] = None,
    by: Annotated[str, typer.Option("--by", help="magnitude or random")] = "magnitude",
    ignore: IgnoreOption = None,
    keep_at_least: KeepOption = None,
    max_ratio: RatioLimitOption = "1",
    round_to: RoundOption = None,
    inexact: InexactOption = False,
    features: FeaturesOption = False,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose what goes without training."""
    from onnxadmm.plan.problem import Limits
    from onnxadmm.planning import rank
    from onnxadmm.report.writer import write_text

    refuse_input(output, model)
    refuse_existing(output, force=force)
    with progress_of(quiet=quiet) as progress:
        plan = rank(
            model,
            read_budget(amounts),
            ratio=ratio,
            by=by,  # type: ignore[arg-type]  # rank checks the word and says what it expects
            limits=Limits(keep_at_least, max_ratio, round_to),
            ignore=ignore or (),
            inexact=inexact,
            features=features,
            seed=seed,
            input_shapes=read_shapes(input_shape),
            custom_ops=custom_ops or (),
            progress=progress,
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
