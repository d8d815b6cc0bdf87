"""Model-local functions, written out where they are called."""

from dataclasses import replace

from onnx_ir.passes import InvariantError, PassError
from onnx_ir.passes.common import InlinePass

from onnxadmm.graph.model import Model, clone


def inline_functions(model: Model) -> Model:
    """Return a copy with all calls written out; the model itself where it has none.

    Functions that call themselves, or need another opset, stay operators that nobody knows.
    """
    if not model.ir.functions:
        return model
    copy = clone(model)
    try:
        result = InlinePass()(copy.ir)
    except (PassError, InvariantError, ValueError, KeyError, RecursionError):
        return model
    return replace(copy, ir=result.model)
