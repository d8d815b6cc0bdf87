"""Which operators the training engine differentiates, found by comparing its gradients with finite differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import find
from onnxadmm.train.prepare.nodes import label, reads
from onnxadmm.train.prepare.stops import is_stop
from onnxadmm.train.prepare.workspace import Workspace


@dataclass(frozen=True)
class Trace:
    """Where gradients flow.

    Attributes:
        carries: values that change when a weight does.
        needed: values the logits change with.
    """

    carries: frozenset[str]
    needed: frozenset[str]

    def holds(self, node: onnx.NodeProto) -> bool:
        """Whether a gradient has to pass this node."""
        return any(name in self.needed for name in node.output) and any(name in self.carries for name in node.output)


def trace_gradients(nodes: Sequence[onnx.NodeProto], *, weights: frozenset[str], logits: str) -> Trace:
    """Follow weights down and the logits up."""
    carries = set(weights)
    for node in nodes:
        if any(name in carries for name in gradient_inputs(node)):
            carries.update(name for name in node.output if name)
    needed = {logits}
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed.update(gradient_inputs(node))
    return Trace(frozenset(carries), frozenset(needed))


def gradient_inputs(node: onnx.NodeProto) -> list[str]:
    """Names a gradient flows to from a node's outputs, those its bodies read included."""
    operator = find(node.domain, node.op_type)
    if operator.gradient == "zero" or is_stop(node):
        return []
    if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
        return reads(node)
    return [name for index, name in enumerate(node.input) if name and index not in operator.indices]


@dataclass(frozen=True)
class Reach:
    """What the loss can train.

    Attributes:
        weights: weights a gradient reaches.
        untrainable: weights whose gradient would have to pass an operator that has none, with that operator.
    """

    weights: frozenset[str]
    untrainable: Mapping[str, str]


def check_differentiable(
    space: Workspace,
    *,
    weights: frozenset[str],
    logits: str,
    refused: Mapping[str, NotTrainableError],
    freeze_untrainable: bool = False,
) -> Reach:
    """Check every node between the weights and the logits.

    Args:
        refused: what lowering had to say about nodes, by their first output.
        freeze_untrainable: give up the weights a node without gradient stands before, instead of the model.

    Raises:
        NotTrainableError: a node on a path from a weight to the logits has no gradient, named with its operator.
    """
    trace = trace_gradients(space.graph.node, weights=weights, logits=logits)
    blocked: dict[str, str] = {}  # values above a node without gradient, with that node
    for node in reversed(space.graph.node):
        if not trace.holds(node):
            continue
        behind = next((blocked[name] for name in node.output if name in blocked), None)
        if behind is None:
            error = refused.get(node.output[0]) or _find_error(space, node)
            if error is None:
                continue
            if not freeze_untrainable:
                raise error
            behind = label(node)
        for name in gradient_inputs(node):
            blocked.setdefault(name, behind)
    untrainable = {name: blocked[name] for name in sorted(weights) if name in blocked}
    return Reach(frozenset(n for n in weights if n in trace.needed and n not in blocked), untrainable)


def _find_error(space: Workspace, node: onnx.NodeProto) -> NotTrainableError | None:
    operator = find(node.domain, node.op_type)
    if operator.gradient is None:
        domain = f" of domain {node.domain}" if node.domain else ""
        found = f"{node.op_type}{domain}, which has none"
    else:
        reason = operator.refuses(space, node) if operator.refuses is not None else None
        if reason is None:
            return None
        found = f"{node.op_type} with {reason}, which has none"
    return NotTrainableError(
        label(node),
        expected="an operator with a gradient between the weights and the loss",
        found=found,
        way_out="replace it, or leave the weights before it out of training",
    )
