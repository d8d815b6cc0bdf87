"""Rewriting a gradient graph into one that computes the same in less time.

Four things, each kept because it was measured to pay (batch 64, one thread, AVX-512):

- convolutions and their gradients by blocked kernels (``blocked_convolutions``), with everything elementwise between
  them in the blocked layout as well, so that values are reordered rarely;
- Relu's gradient dX = dY [Y > 0] as a product with min(max(1e38 Y, 0), 1): the engine's ReluGrad branches for every
  element, 4.5 ms on a million elements against 0.25 ms;
- MaxPool's gradient without the places of the maxima (``blocked_pooling``);
- LayerNormalization's gradient written out (``train.gradients.norms``).

What stays of the open nodes that our own differentiation leaves (see ``open_nodes``) is written in operators of ONNX.
"""

from collections.abc import Callable, Mapping

import onnx

from onnxadmm.train.backward.blocks import BlockedGraph
from onnxadmm.train.backward.convolutions import write_conv, write_conv_gradient
from onnxadmm.train.backward.open_nodes import write_layer_norm_gradient, write_open
from onnxadmm.train.backward.pooling import write_max_pool, write_max_pool_gradient
from onnxadmm.train.engine import Engine
from onnxadmm.train.gradients.activations import STEEP
from onnxadmm.train.prepare.nodes import attribute, attributes, reads, sort_nodes, words

#: Operators that treat every element alike, given inputs of one shape and scalars.
#: None makes anything but finite numbers of zeros, which is what fills blocks up.
ELEMENTWISE = words(
    "Abs Add And Cast Clip Erf Exp Greater GreaterOrEqual HardSigmoid LeakyRelu Less LessOrEqual Mul Neg Not Or Relu "
    "Sigmoid Sign Sub Sum Tanh Where LeakyReluGrad SigmoidGrad TanhGrad"
)
#: Operators with blocked kernels, by domain and name.
BLOCKED: Mapping[tuple[str, str], Callable[[BlockedGraph, onnx.NodeProto], bool]] = {
    ("", "Conv"): write_conv,
    ("com.microsoft", "ConvGrad"): write_conv_gradient,
    ("", "MaxPool"): write_max_pool,
    ("", "MaxPoolGrad"): write_max_pool_gradient,
}


def make_faster(model: onnx.ModelProto, *, block: int, engine: Engine) -> onnx.ModelProto:
    """Rewrite a gradient graph, or a forward graph alone; inputs, outputs and results stay, up to rounding.

    Args:
        model: shapes of values recorded as far as known; left as it is.
        block: channels per block of the blocked kernels, 0 where the machine has none.
        engine: who differentiated it; what our own differentiation left open is written in operators of ONNX.
    """
    # The builder records no shapes of what it puts between its own operators.
    graph = BlockedGraph(onnx.shape_inference.infer_shapes(model), block)
    if engine == "plain":
        graph.leave = write_open
    for node in sort_nodes(list(model.graph.node)):
        _write(graph, node)
    return graph.finish()


def _write(graph: BlockedGraph, node: onnx.NodeProto) -> None:
    if node.op_type == "ReluGrad" and node.domain == "com.microsoft":
        mask = onnx.helper.make_node("HardSigmoid", [node.input[1]], [f"{node.output[0]}/mask"], alpha=STEEP, beta=0.0)
        graph.describe(mask.output[0], like=node.input[1])
        _write(graph, mask)
        _write(graph, onnx.helper.make_node("Mul", [node.input[0], mask.output[0]], [node.output[0]]))
        return
    if node.op_type == "LayerNormalizationGrad" and write_layer_norm_gradient(graph, node):
        return
    if graph.block:
        write = BLOCKED.get((node.domain, node.op_type), _write_elementwise)
        if write(graph, node):
            return
    shape = graph.shape(node.input[0]) if node.op_type == "Shape" and not node.domain else None
    if shape is not None:
        chosen = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
        graph.set_plain(graph.integers(*chosen), node.output[0])
        return
    for name in reads(node):
        graph.to_plain(name)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    graph.leave(graph, copy)


def _write_elementwise(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write a node on blocked values, when one of its inputs exists in that layout only."""
    names = [name for name in node.input if name]
    if not any(graph.only_blocked(name) for name in names) or len(node.output) != 1:
        return False
    if node.op_type == "Identity":
        graph.set_blocked(node.output[0], graph.blocked[names[0]])
        return True
    shape = graph.shape(node.output[0])
    if node.op_type not in ELEMENTWISE or shape is None:
        return False
    inputs: list[str] = []
    for name in node.input:
        own = graph.shape(name) if name else ()
        if own is not None and all(size == 1 for size in own):
            inputs.append(graph.to_plain(name) if name else name)
        elif own == shape and (name in graph.blocked or graph.is_float(name)):
            inputs.append(graph.to_blocked(name))
        else:
            return False
    hint = f"{node.output[0]}/blocked"
    graph.set_blocked(node.output[0], graph.add(node.op_type, inputs, hint, domain=node.domain, **attributes(node)))
    return True
