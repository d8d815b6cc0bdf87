"""Applying lowerings: every operator between the weights and the loss, written in operators that have a gradient."""

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import find
from onnxadmm.train.lowering.fusing import fuse_batch_normalization, pool_before_relu
from onnxadmm.train.lowering.indexing import slice_pieces
from onnxadmm.train.lowering.writer import Nodes
from onnxadmm.train.prepare.differentiable import trace_gradients
from onnxadmm.train.prepare.workspace import Workspace


def lower(space: Workspace, *, weights: frozenset[str], logits: str) -> dict[str, NotTrainableError]:
    """Lower every node between the weights and the logits, results of lowerings included.

    Args:
        weights: names of the constants to train; shapes must be inferred.

    Returns:
        Why a node that has a lowering could not be lowered, by its first output.
    """
    if fuse_batch_normalization(space) + pool_before_relu(space):
        space.infer()
    settled: set[str] = set()
    refused: dict[str, NotTrainableError] = {}

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        lowering = find("", node.op_type).lowering if node.domain in ("", "ai.onnx") else None
        if lowering is None or node.output[0] in settled or not trace.holds(node):
            return None
        try:
            made: Nodes = lowering(space, node)
        except NotTrainableError as error:
            refused[node.output[0]] = error
            settled.add(node.output[0])
            return None
        if any(new is node for new in made):
            settled.add(node.output[0])
        return made

    while True:
        trace = trace_gradients(space.graph.node, weights=weights, logits=logits)
        if not space.replace_nodes(rewrite):
            break
        space.infer()
    if slice_pieces(space, trace):
        space.infer()
    return refused
