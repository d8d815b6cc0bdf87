"""What a graph computes, written out: functions where they are called, branches that are taken, computed weights."""

from collections.abc import Collection

from onnxadmm.graph.branches import write_out_branches
from onnxadmm.graph.computed import write_out_computed
from onnxadmm.graph.functions import inline_functions
from onnxadmm.graph.model import Model
from onnxadmm.graph.repeated import write_out_repeated
from onnxadmm.graph.shared import write_out_shared


def inline(model: Model, *, cut: Collection[str] | None = None) -> Model:
    """Return a copy in which everything stands that can be known before running; the model itself where it does.

    Calls of model-local functions are replaced by the functions' nodes, an If of known condition by the branch that is
    taken, weights that are computed from constants by constants, zeros and masks that unrelated layers share by copies.
    Values that get a new name do so because theirs would clash; inputs, outputs and initializers keep theirs.

    Args:
        model: it is not changed.
        cut: names of values that are going to lose positions: other computed weights are left to the graph, which may
            need less room for them. None where that is not known.
    """
    plain = write_out_branches(inline_functions(model))
    return write_out_repeated(write_out_shared(write_out_computed(plain, cut=cut)))
