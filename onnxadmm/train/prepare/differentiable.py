"""Which operators the training engine differentiates, found by comparing its gradients with finite differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.prepare.nodes import attribute, label, reads, words
from onnxadmm.train.prepare.stops import is_stop
from onnxadmm.train.prepare.workspace import BATCH_NORM, MICROSOFT, MICROSOFT_ACTIVATIONS, Workspace

Objection = Callable[[Workspace, onnx.NodeProto], str | None]

#: Operators of the default domain whose gradient exists in the engine and is right on the CPU.
DIFFERENTIABLE = words(
    "Abs Add AveragePool Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather GatherElements GatherND Gemm "
    "GlobalAveragePool Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow "
    "Reciprocal ReduceLogSumExp ReduceMean ReduceSum Relu Reshape ScatterElements ScatterND Sigmoid Sin Slice "
    "Softmax SoftmaxCrossEntropyLoss Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where"
)

#: Inputs of an operator through which no gradient flows, by index.
INDEX_INPUTS: Mapping[str, frozenset[int]] = {
    "CastLike": frozenset({1}),
    "Clip": frozenset({1, 2}),
    "Expand": frozenset({1}),
    "Gather": frozenset({1}),
    "GatherElements": frozenset({1}),
    "GatherND": frozenset({1}),
    "CumSum": frozenset({1}),
    "GRU": frozenset({4}),
    "LSTM": frozenset({4}),
    "Pad": frozenset({1, 2, 3}),
    "RNN": frozenset({4}),
    "ReduceL1": frozenset({1}),
    "ReduceL2": frozenset({1}),
    "ReduceLogSum": frozenset({1}),
    "ReduceLogSumExp": frozenset({1}),
    "ReduceMax": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceMin": frozenset({1}),
    "ReduceProd": frozenset({1}),
    "ReduceSum": frozenset({1}),
    "ReduceSumSquare": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Reshape": frozenset({1}),
    "ScatterElements": frozenset({1}),
    "ScatterND": frozenset({1}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Where": frozenset({0}),
}
#: Operators whose results carry no gradient whatever they read: what lies above them is not reached by training.
STOPS = words(
    "ArgMax ArgMin And Ceil Equal Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonZero Not OneHot Or "
    "Round Shape Sign Size"
)


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
    if (node.op_type in STOPS and not node.domain) or is_stop(node):
        return []
    if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
        return reads(node)
    indices = INDEX_INPUTS.get(node.op_type, frozenset())
    return [name for index, name in enumerate(node.input) if name and index not in indices]


def _object_to_pad(space: Workspace, node: onnx.NodeProto) -> str | None:
    mode = attribute(node, "mode", "constant")
    return None if mode == "constant" else f"mode {mode}"


def _object_to_pow(space: Workspace, node: onnx.NodeProto) -> str | None:
    return None if node.input[1] in space.constants else "an exponent that is not constant"


def _object_to_scatter(space: Workspace, node: onnx.NodeProto) -> str | None:
    reduction = attribute(node, "reduction", "none")
    return None if reduction == "none" else f"reduction {reduction}"


#: Forms of a differentiable operator that the engine differentiates wrongly or not at all.
OBJECTIONS: Mapping[str, Objection] = {
    "Pad": _object_to_pad,
    "Pow": _object_to_pow,
    "ScatterElements": _object_to_scatter,
    "ScatterND": _object_to_scatter,
}


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
    microsoft = node.domain == MICROSOFT and node.op_type in (*MICROSOFT_ACTIVATIONS, BATCH_NORM)
    if not microsoft and (node.domain not in ("", "ai.onnx") or node.op_type not in DIFFERENTIABLE):
        domain = f" of domain {node.domain}" if node.domain else ""
        found = f"{node.op_type}{domain}, which has none"
    else:
        objection = OBJECTIONS.get(node.op_type)
        reason = objection(space, node) if objection is not None else None
        if reason is None:
            return None
        found = f"{node.op_type} with {reason}, which has none"
    return NotTrainableError(
        label(node),
        expected="an operator with a gradient between the weights and the loss",
        found=found,
        way_out="replace it, or leave the weights before it out of training",
    )
