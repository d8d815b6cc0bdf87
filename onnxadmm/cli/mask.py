"""``onnxadmm mask``."""

from onnxadmm.cli.options import CustomOpsOption, ForceOption, ModelArgument, OutputOption, PlanArgument, RulesOption
from onnxadmm.console import print_line, stdout_console
from onnxadmm.files import refuse_input
from onnxadmm.graph.model import save
from onnxadmm.plan.plan import Plan
from onnxadmm.surgery import mask as masked


def run(
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    custom_ops: CustomOpsOption = None,
    rules: RulesOption = None,
    force: ForceOption = False,
) -> None:
    """Write the masked original: the readers of removed units zero, nothing cut."""
    refuse_input(output, model, plan)
    result = masked(model, Plan.read(plan), custom_ops=custom_ops or ())
    size = save(result, output, sparse=False, force=force)
    print_line(f"{output}: {size:,} bytes", stdout_console())
