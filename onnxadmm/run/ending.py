"""What a run does once the network is trained, and what it ends with."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnxadmm.graph.model import Model
from onnxadmm.plan.plan import Plan
from onnxadmm.report.report import Report
from onnxadmm.report.variants import Form
from onnxadmm.run.measure import Timing

Option = str | int | float | bool | None


@dataclass(frozen=True)
class Ending:
    """What a run does once the network is trained; nothing of it changes what was chosen.

    Attributes:
        sparse: store weights whose connections were pruned sparsely, where that takes less room.
        single_file: write weights into the file, also where the model has external data.
        int8, fp16: write the result in bytes as well, and with weights in 16 bits.
        timing: how original and result are timed; None: not at all.
        options: what else of the call belongs into the report, by name.
    """

    sparse: bool
    single_file: bool
    int8: bool
    fp16: bool
    timing: Timing | None
    options: Mapping[str, Option]


@dataclass(frozen=True)
class Finished:
    """What a run ends with: the report, the plan, the small model as it was written, and by name its other forms."""

    report: Report
    plan: Plan
    model: Model
    variants: Mapping[Form, Model]
