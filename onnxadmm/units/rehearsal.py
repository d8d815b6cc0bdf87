"""The cut, rehearsed on the structure alone: what no rule can rewrite is found while groups are, and locks them."""

import onnx_ir

from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.adapt import adapt_nodes
from onnxadmm.rules.edit import Kept


def refusals(model: Model, shapes: Shapes, kept: Kept) -> dict[str, str]:
    """Return the nodes that cannot be rewritten when units go, by the name of a result, and why.

    Weights are neither read nor cut.

    Args:
        model: with functions written out; it is not changed.
        shapes: of its values.
        kept: positions of each axis that stay, by the name of a value; None where all do.
    """
    found: dict[str, str] = {}

    def note(node: onnx_ir.Node, error: Exception) -> None:
        name = next((value.name for value in node.outputs if value.name), None)
        if name is None:
            raise error
        found[name] = f"cannot be rewritten: {str(error) or type(error).__name__}"

    adapt_nodes(clone(model), shapes, kept, failed=note)
    return found
