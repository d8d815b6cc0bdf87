"""``onnxadmm mask``."""

from onnxadmm.cli.options import (
    CustomOpsOption,
    ForceOption,
    InputShapeOption,
    ModelArgument,
    OutputOption,
    PlanArgument,
    RulesOption,
    SingleFileOption,
    read_shapes,
)
from onnxadmm.console import print_line, stdout_console


def run(
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    single_file: SingleFileOption = False,
    force: ForceOption = False,
) -> None:
    """Write the masked original: the readers of removed units zero, nothing cut."""
    from onnxadmm.graph.model import save
    from onnxadmm.plan.plan import Plan
    from onnxadmm.surgery import mask as masked

    result = masked(model, Plan.read(plan), input_shapes=read_shapes(input_shape), custom_ops=custom_ops or ())
    size = save(result, output, single_file=single_file, force=force)
    print_line(f"{output}: {size:,} bytes", stdout_console())
