"""Calls of model-local functions, written out: the functions' nodes in their place."""

from dataclasses import replace

from onnx_ir.passes import InvariantError, PassError
from onnx_ir.passes.common import InlinePass

from onnxadmm.graph.model import Model, clone


def write_out_functions(model: Model) -> Model:
    """Return a copy in which all calls are written out; the model itself where there are none, or it cannot be done.

    Functions that call themselves or need another opset stay operators that nobody knows.
    """
    if not model.ir.functions:
        return model
    copy = clone(model)
    try:
        result = InlinePass()(copy.ir)
    except (PassError, InvariantError, ValueError, KeyError, RecursionError):
        return model
    return replace(copy, ir=result.model)
