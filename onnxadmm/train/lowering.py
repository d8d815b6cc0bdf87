"""Operators without a gradient, written in operators that have one: one function per operator, one table.

A lowering gives nodes whose last one puts out the original output name. Trainable weights keep their names:
what is derived from them is computed inside the graph, so gradients arrive at the user's own initializers.
"""

from collections.abc import Mapping

import onnx

from onnxadmm.train import lower_activations as activations
from onnxadmm.train import lower_layers as layers
from onnxadmm.train.workspace import Workspace, reads
from onnxadmm.train.writer import Lowering, Nodes, Writer


def fuse_batch_normalization(space: Workspace) -> int:
    """Compute a BatchNormalization that follows a Conv inside the Conv's weights; returns how many were fused.

    W' = W k, b' = (b - mean) k + bias. The same function of the same parameters, but its backward pass touches
    kilobytes of weights where Mul and Add would touch whole feature maps.
    """
    producers, uses = space.producers(), space.uses()

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" and not node.domain else None
        if conv is None or conv.op_type != "Conv" or uses[conv.output[0]] != 1:
            return None
        weight = space.shape(conv.input[1])
        if weight is None:
            return None
        write = Writer(space, node)
        factor, mean = layers.batch_factor(space, write, node)
        broadcast = write.integers(-1, *([1] * (len(weight) - 1)))  # [cout] -> [cout, 1, ...]
        kernel = write.add("Mul", conv.input[1], write.add("Reshape", factor, broadcast))
        if len(conv.input) > 2 and conv.input[2]:
            centred = write.add("Mul", write.add("Sub", conv.input[2], mean), factor)
            bias = write.add("Add", centred, node.input[2])
        else:
            bias = write.add("Sub", node.input[2], write.add("Mul", mean, factor))
        whole = onnx.NodeProto()
        whole.CopyFrom(conv)
        del whole.input[:], whole.output[:]
        whole.input.extend([conv.input[0], kernel, bias])
        whole.output.append(node.output[0])
        return [*write.nodes, whole]

    count = space.replace_nodes(rewrite)
    space.drop_dead()
    return count


def pool_before_relu(space: Workspace) -> int:
    """Let MaxPool stand before Relu where nothing else reads the Relu; returns how often.

    max commutes with max(., 0), values and gradients alike, and Relu's two passes then see a fraction of the elements.
    """
    producers, uses = space.producers(), space.uses()
    count = 0
    for pool in space.graph.node:
        relu = producers.get(pool.input[0]) if pool.op_type == "MaxPool" and len(pool.output) == 1 else None
        if relu is None or relu.op_type != "Relu" or relu.domain or uses[relu.output[0]] != 1:
            continue
        pooled = space.fresh(f"{pool.output[0]}/pooled")
        pool.input[0] = relu.input[0]
        relu.input[0], relu.output[0] = pooled, pool.output[0]
        pool.output[0] = pooled
        count += 1
    if count:
        _sort(space)
    return count


def _sort(space: Workspace) -> None:
    """Order nodes so that each stands after what it reads."""
    producers = space.producers()
    done: set[str] = set()
    nodes: Nodes = []
    for root in list(space.graph.node):
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [producers[n] for n in reads(node) if n in producers and producers[n].output[0] not in done]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if node.output[0] not in done:
                done.add(node.output[0])
                nodes.append(node)
    del space.graph.node[:]
    space.graph.node.extend(nodes)


#: One entry per operator of the default domain that is rewritten before differentiation.
LOWERINGS: Mapping[str, Lowering] = {
    "AveragePool": layers.lower_average_pool,
    "BatchNormalization": layers.lower_batch_normalization,
    "Celu": activations.lower_celu,
    "Conv": layers.lower_conv,
    "Elu": activations.lower_elu,
    "Gemm": layers.lower_gemm,
    "GlobalMaxPool": layers.lower_global_max_pool,
    "HardSigmoid": activations.lower_hard_sigmoid,
    "HardSwish": activations.lower_hard_swish,
    "LayerNormalization": layers.lower_layer_normalization,
    "MaxPool": layers.lower_max_pool,
    "Mean": activations.lower_mean,
    "Mish": activations.lower_mish,
    "PRelu": activations.lower_prelu,
    "Pow": layers.lower_pow,
    "ReduceL2": layers.lower_reduction,
    "ReduceLogSumExp": layers.lower_reduction,
    "Selu": activations.lower_selu,
    "Slice": layers.lower_slice,
    "Softplus": activations.lower_softplus,
    "Softsign": activations.lower_softsign,
    "Sum": activations.lower_sum,
}


def lower(space: Workspace) -> None:
    """Apply the table to every node, results of lowerings included; shapes must be inferred."""
    if fuse_batch_normalization(space) + pool_before_relu(space):
        space.infer()

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        table = LOWERINGS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if table is None:
            return None
        made: Nodes = []
        for new in table(space, node):
            again = new is not node and new.op_type in LOWERINGS and new.op_type != node.op_type
            made.extend(LOWERINGS[new.op_type](space, new) if again else [new])
        return made

    space.replace_nodes(rewrite)
