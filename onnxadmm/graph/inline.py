"""Model-local functions, written out where they are called."""

from dataclasses import replace

from onnx_ir.passes import InvariantError, PassError
from onnx_ir.passes.common import InlinePass

from onnxadmm.graph.model import Model, clone


def inline(model: Model) -> Model:
    """Return a copy whose calls of model-local functions are replaced by the functions' nodes.

    Values that get a new name do so because theirs would clash; inputs, outputs and initializers keep theirs. A model
    without functions is handed back as it is, and so is one whose functions cannot be inlined (they call themselves,
    or need another opset): their calls are then operators that nobody knows.
    """
    if not model.ir.functions:
        return model
    copy = clone(model)
    try:
        result = InlinePass()(copy.ir)
    except (PassError, InvariantError, ValueError, KeyError, RecursionError):
        return model
    return replace(copy, ir=result.model)
