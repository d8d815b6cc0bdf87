"""Operators without a gradient, written in operators that have one: one function per operator, one table.

A lowering gives nodes whose last one puts out the original output name. Trainable weights keep their names:
what is derived from them is computed inside the graph, so gradients arrive at the user's own initializers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.workspace import Workspace, attribute, label, reads, set_attribute

Nodes = list[onnx.NodeProto]
Lowering = Callable[[Workspace, onnx.NodeProto], Nodes]


class _Writer:
    """Collects nodes that compute one output."""

    def __init__(self, space: Workspace, node: onnx.NodeProto) -> None:
        self._space = space
        self._hint = node.output[0]
        self.nodes: Nodes = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        node = self._space.node(operator, inputs, f"{self._hint}/{operator}", **attributes)
        self.nodes.append(node)
        return str(node.output[0])

    def scalar(self, value: float) -> str:
        return self._space.constant(f"{self._hint}/constant", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self._space.constant(f"{self._hint}/shape", np.array(values, np.int64))

    def finish(self, value: str) -> Nodes:
        """Give ``value``, the last node's output, the original output's name."""
        last = self.nodes[-1]
        assert last.output[0] == value
        last.output[0] = self._hint
        return self.nodes


def lower_prelu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) - slope * max(-x, 0)"""
    write = _Writer(space, node)
    negative = write.add("Relu", write.add("Neg", node.input[0]))
    scaled = write.add("Mul", negative, node.input[1])
    return write.finish(write.add("Sub", write.add("Relu", node.input[0]), scaled))


def lower_elu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + alpha (exp(min(x, 0)) - 1)"""
    return _exponential(space, node, alpha=attribute(node, "alpha", 1.0), divisor=1.0, gamma=1.0)


def lower_celu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)"""
    alpha = attribute(node, "alpha", 1.0)
    return _exponential(space, node, alpha=alpha, divisor=alpha, gamma=1.0)


def lower_selu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """gamma (max(x, 0) + alpha (exp(min(x, 0)) - 1))"""
    alpha = attribute(node, "alpha", 1.6732632423543772)
    return _exponential(space, node, alpha=alpha, divisor=1.0, gamma=attribute(node, "gamma", 1.0507009873554805))


def _exponential(space: Workspace, node: onnx.NodeProto, *, alpha: float, divisor: float, gamma: float) -> Nodes:
    write = _Writer(space, node)
    # min(x, 0) written as -max(-x, 0): exp then never overflows.
    low = write.add("Neg", write.add("Relu", write.add("Neg", node.input[0])))
    grown = write.add("Exp", write.add("Mul", low, write.scalar(1.0 / divisor)))
    bend = write.add("Mul", write.add("Sub", grown, write.scalar(1.0)), write.scalar(alpha * gamma))
    line = write.add("Mul", write.add("Relu", node.input[0]), write.scalar(gamma))
    return write.finish(write.add("Add", line, bend))


def lower_softplus(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """max(x, 0) + log(1 + exp(-|x|))"""
    write = _Writer(space, node)
    return write.finish(_softplus(write, node.input[0]))


def _softplus(write: _Writer, value: str) -> str:
    tail = write.add("Exp", write.add("Neg", write.add("Abs", value)))
    log = write.add("Log", write.add("Add", tail, write.scalar(1.0)))
    return write.add("Add", write.add("Relu", value), log)


def lower_mish(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x tanh(softplus(x))"""
    write = _Writer(space, node)
    return write.finish(write.add("Mul", node.input[0], write.add("Tanh", _softplus(write, node.input[0]))))


def lower_softsign(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x / (1 + |x|)"""
    write = _Writer(space, node)
    size = write.add("Add", write.add("Abs", node.input[0]), write.scalar(1.0))
    return write.finish(write.add("Div", node.input[0], size))


def lower_hard_sigmoid(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """min(max(alpha x + beta, 0), 1)"""
    write = _Writer(space, node)
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return write.finish(_hard_sigmoid(write, node.input[0], alpha, beta))


def lower_hard_swish(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x min(max(x / 6 + 1/2, 0), 1)"""
    write = _Writer(space, node)
    return write.finish(write.add("Mul", node.input[0], _hard_sigmoid(write, node.input[0], 1.0 / 6.0, 0.5)))


def _hard_sigmoid(write: _Writer, value: str, alpha: float, beta: float) -> str:
    line = write.add("Add", write.add("Mul", value, write.scalar(alpha)), write.scalar(beta))
    return write.add("Clip", line, write.scalar(0.0), write.scalar(1.0))


def lower_global_max_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """A MaxPool whose kernel is the whole plane."""
    shape = _need_shape(space, node, node.input[0])
    write = _Writer(space, node)
    return write.finish(write.add("MaxPool", node.input[0], kernel_shape=list(shape[2:])))


def lower_sum(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Additions in a row."""
    write = _Writer(space, node)
    return write.finish(_sum(write, node))


def lower_mean(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Additions in a row, then a division by their number."""
    write = _Writer(space, node)
    return write.finish(write.add("Mul", _sum(write, node), write.scalar(1.0 / len(node.input))))


def _sum(write: _Writer, node: onnx.NodeProto) -> str:
    if len(node.input) == 1:
        return write.add("Identity", node.input[0])
    total = str(node.input[0])
    for name in node.input[1:]:
        total = write.add("Add", total, name)
    return total


def lower_layer_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with the mean and inverse-deviation outputs its gradient reads."""
    while len(node.output) < 3:
        node.output.append("")
    for index, hint in ((1, "mean"), (2, "inverse_deviation")):
        if not node.output[index]:
            node.output[index] = space.fresh(f"{node.output[0]}/{hint}")
    if len(node.input) < 3 or not node.input[2]:
        # The engine's gradient takes the bias for granted.
        shape = space.shape(node.input[1])
        if shape is None:
            raise _unknown_shape(node, node.input[1])
        del node.input[2:]
        node.input.append(space.constant(f"{node.output[0]}/bias", np.zeros(shape, np.float32)))
    return [node]


def lower_max_pool(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """The same node with the index output its gradient reads, in row-major order."""
    if attribute(node, "storage_order", 0) and len(node.output) > 1 and node.output[1]:
        raise NotTrainableError(
            label(node),
            expected="row-major indices",
            found="storage_order = 1 with its indices used, which the engine differentiates wrongly",
            way_out="export without storage_order",
        )
    set_attribute(node, "storage_order", None)
    if len(node.output) == 1:
        node.output.append("")
    if not node.output[1]:
        node.output[1] = space.fresh(f"{node.output[0]}/indices")
    return [node]


def lower_batch_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x k + (bias - mean k) with k = scale / sqrt(var + epsilon): scale and bias train, statistics stay."""
    write = _Writer(space, node)
    shape = _need_shape(space, node, node.input[0])
    factor, mean = _batch_factor(space, write, node)
    shift = write.add("Sub", node.input[2], write.add("Mul", mean, factor))
    broadcast = write.integers(-1, *([1] * (len(shape) - 2)))  # [C] -> [C, 1, ...]
    scaled = write.add("Mul", node.input[0], write.add("Reshape", factor, broadcast))
    return write.finish(write.add("Add", scaled, write.add("Reshape", shift, broadcast)))


def _batch_factor(space: Workspace, write: _Writer, node: onnx.NodeProto) -> tuple[str, str]:
    """Names of k = scale / sqrt(var + epsilon) and of the mean, both [C]."""
    mean, variance = (space.constants.get(name) for name in node.input[3:5])
    if mean is None or variance is None:
        raise NotTrainableError(
            label(node),
            expected="constant mean and variance",
            found="statistics computed in the graph",
            way_out="export the model in inference mode",
        )
    deviation = np.sqrt(variance.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    inverse = space.constant(f"{node.output[0]}/inverse_deviation", (1.0 / deviation).astype(np.float32))
    return write.add("Mul", node.input[1], inverse), node.input[3]


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
        write = _Writer(space, node)
        factor, mean = _batch_factor(space, write, node)
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


def _need_shape(space: Workspace, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    shape = space.shape(name)
    if shape is None:
        raise _unknown_shape(node, name)
    return shape


def _unknown_shape(node: onnx.NodeProto, name: str) -> NotTrainableError:
    return NotTrainableError(
        label(node),
        expected="known shapes at a fixed batch size",
        found=f"{name} without one",
        way_out="simplify the model with onnxsim first",
    )


#: One entry per operator of the default domain that is rewritten before differentiation.
LOWERINGS: Mapping[str, Lowering] = {
    "BatchNormalization": lower_batch_normalization,
    "Celu": lower_celu,
    "Elu": lower_elu,
    "GlobalMaxPool": lower_global_max_pool,
    "HardSigmoid": lower_hard_sigmoid,
    "HardSwish": lower_hard_swish,
    "LayerNormalization": lower_layer_normalization,
    "MaxPool": lower_max_pool,
    "Mean": lower_mean,
    "Mish": lower_mish,
    "PRelu": lower_prelu,
    "Selu": lower_selu,
    "Softplus": lower_softplus,
    "Softsign": lower_softsign,
    "Sum": lower_sum,
}


def lower(space: Workspace) -> None:
    """Apply the table to every node, results of lowerings included; shapes must be inferred."""
    fuse_batch_normalization(space)
    pool_before_relu(space)

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
