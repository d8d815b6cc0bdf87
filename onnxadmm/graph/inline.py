"""What a graph computes, written out: functions where they are called, branches that are taken, computed weights."""

from dataclasses import replace

from onnx_ir.passes import InvariantError, PassError
from onnx_ir.passes.common import InlinePass

from onnxadmm.graph.branches import write_out_branches
from onnxadmm.graph.computed import write_out_computed
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.shared import write_out_shared


def inline(model: Model) -> Model:
    """Return a copy in which everything stands that can be known before running; the model itself where it does.

    Calls of model-local functions are replaced by the functions' nodes, an If of known condition by the branch that is
    taken, weights that are computed from constants by constants, zeros that unrelated layers share by copies. Values
    that get a new name do so because theirs would clash; inputs, outputs and initializers keep theirs.
    """
    return write_out_shared(write_out_computed(write_out_branches(_inline_functions(model))))


def _inline_functions(model: Model) -> Model:
    """Write out all calls; functions that call themselves or need another opset stay operators that nobody knows."""
    if not model.ir.functions:
        return model
    copy = clone(model)
    try:
        result = InlinePass()(copy.ir)
    except (PassError, InvariantError, ValueError, KeyError, RecursionError):
        return model
    return replace(copy, ir=result.model)
