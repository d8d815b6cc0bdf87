"""Rewriting neighbours so that their backward pass costs less: the same functions of the same weights."""

import onnx

from onnxadmm.train.lowering.norms import batch_factor
from onnxadmm.train.lowering.writer import Nodes, Writer
from onnxadmm.train.prepare.nodes import sort_nodes
from onnxadmm.train.prepare.workspace import Workspace


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
        factor, mean = batch_factor(space, write, node)
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
        ordered = sort_nodes(list(space.graph.node))
        del space.graph.node[:]
        space.graph.node.extend(ordered)
    return count
