"""Which operators the training engine differentiates, found by comparing its gradients with finite differences."""

from collections.abc import Callable, Mapping

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.workspace import MICROSOFT_ACTIVATIONS, Workspace, attribute, label, reads, words

Objection = Callable[[Workspace, onnx.NodeProto], str | None]

#: Operators of the default domain whose gradient exists in the engine and is right on the CPU.
DIFFERENTIABLE = words(
    "Abs Add AveragePool Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather GatherElements GatherND Gelu Gemm "
    "GlobalAveragePool Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow "
    "Reciprocal ReduceL2 ReduceLogSumExp ReduceMean ReduceSum Relu Reshape ScatterElements ScatterND Sigmoid Sin Slice "
    "Softmax SoftmaxCrossEntropyLoss Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where"
)

#: Inputs of an operator through which no gradient flows, by index.
INDEX_INPUTS: Mapping[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Expand": frozenset({1}),
    "Gather": frozenset({1}),
    "GatherElements": frozenset({1}),
    "GatherND": frozenset({1}),
    "Pad": frozenset({1, 2, 3}),
    "ReduceL2": frozenset({1}),
    "ReduceLogSumExp": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceSum": frozenset({1}),
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


def _object_to_pad(space: Workspace, node: onnx.NodeProto) -> str | None:
    mode = attribute(node, "mode", "constant")
    return None if mode == "constant" else f"mode {mode}"


def _object_to_pow(space: Workspace, node: onnx.NodeProto) -> str | None:
    return None if node.input[1] in space.constants else "an exponent that is not constant"


def _object_to_matmul(space: Workspace, node: onnx.NodeProto) -> str | None:
    ranks = [len(space.shape(name) or (0, 0)) for name in node.input]
    return "an operand of rank 1" if 1 in ranks else None


#: Forms of a differentiable operator that the engine differentiates wrongly or not at all.
OBJECTIONS: Mapping[str, Objection] = {"Pad": _object_to_pad, "Pow": _object_to_pow, "MatMul": _object_to_matmul}


def check_differentiable(space: Workspace, *, weights: frozenset[str], logits: str) -> frozenset[str]:
    """Check every node between the weights and the logits; return the weights a gradient reaches.

    Raises:
        NotTrainableError: a node on a path from a weight to the logits has no gradient, named with its operator.
    """
    carries = set(weights)  # values that change when a weight does
    for node in space.graph.node:
        if node.op_type in STOPS and not node.domain:
            continue
        indices = INDEX_INPUTS.get(node.op_type, frozenset())
        read = [name for index, name in enumerate(node.input) if index not in indices]
        if any(name in carries for name in read) or (_has_body(node) and carries.intersection(reads(node))):
            carries.update(name for name in node.output if name)
    needed = {logits}  # values the logits change with
    for node in reversed(space.graph.node):
        if not any(name in needed for name in node.output) or (node.op_type in STOPS and not node.domain):
            continue
        indices = INDEX_INPUTS.get(node.op_type, frozenset())
        needed.update(name for index, name in enumerate(node.input) if name and index not in indices)
        if any(name in carries for name in node.output):
            _check_node(space, node)
    return frozenset(name for name in weights if name in needed)


def _has_body(node: onnx.NodeProto) -> bool:
    return any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute)


def _check_node(space: Workspace, node: onnx.NodeProto) -> None:
    microsoft = node.domain == "com.microsoft" and node.op_type in MICROSOFT_ACTIVATIONS
    if not microsoft and (node.domain not in ("", "ai.onnx") or node.op_type not in DIFFERENTIABLE):
        domain = f" of domain {node.domain}" if node.domain else ""
        found = f"{node.op_type}{domain}, which has none"
    else:
        objection = OBJECTIONS.get(node.op_type)
        reason = objection(space, node) if objection is not None else None
        if reason is None:
            return
        found = f"{node.op_type} with {reason}, which has none"
    raise NotTrainableError(
        label(node),
        expected="an operator with a gradient between the weights and the loss",
        found=found,
        way_out="replace it, or leave the weights before it out of training",
    )
