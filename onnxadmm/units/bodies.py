"""Weights inside of the bodies of If, Loop and the like: they stay, and they count."""

from dataclasses import dataclass

import onnx_ir

from onnxadmm.graph.constants import constant
from onnxadmm.rules.analyse import bodies
from onnxadmm.rules.facts import Facts


@dataclass(frozen=True)
class InnerWeight:
    """A weight in the body of a node.

    Attributes:
        name: of the weight.
        layer: name of the node of the main graph.
        shape: of the weight, at least one axis.
        reason: why it stays.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    reason: str


def inner_weights(facts: Facts, types: frozenset[onnx_ir.DataType]) -> list[InnerWeight]:
    """Return the constants of some types in the bodies of nodes that lock what they touch."""
    found: list[InnerWeight] = []
    for node, reason in facts.closed:
        layer = node.name or next((output.name for output in node.outputs if output.name), "unnamed")
        pending = bodies(node)
        while pending:
            graph = pending.pop(0)
            values = list(graph.initializers.values())
            for inner in graph:
                pending += bodies(inner)
                values += inner.outputs if inner.op_type == "Constant" else ()
            for value in values:
                array = constant(value)
                if array is None or array.ndim == 0 or array.dtype.kind in "OSU":
                    continue
                if onnx_ir.DataType.from_numpy(array.dtype) in types:
                    found.append(InnerWeight(value.name or "", layer, array.shape, reason))
    return found
