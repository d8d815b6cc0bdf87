"""MaxPool and its gradient by the engine's blocked kernels.

The engine's MaxPool is slow once it has to tell where the maxima were, as its gradient asks it to: 2.7 ms on
[64, 20, 24, 24] and 0.6 ms for the gradient, against 1.0 ms for both here. Where windows tile the picture, the places
of the maxima can be found again: they are where x equals its window's maximum, spread over the window.

    dX = m * spread(dY / k),    m = [x = spread(y)],    k = number of maxima in the window

A window with several equal maxima shares the gradient among them, where the engine gives all of it to the first; both
are subgradients.
"""

import numpy as np
import onnx

from onnxadmm.train.backward.blocks import BLOCKED_DOMAIN, BlockedGraph
from onnxadmm.train.gradients.activations import STEEP
from onnxadmm.train.prepare.nodes import attribute

#: Least share of channels in their blocks.
_FULL = 0.6


def write_max_pool(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write a MaxPool whose windows tile and whose places only its gradient wants; False for any other."""
    shape, kernel = graph.shape(node.input[0]), attribute(node, "kernel_shape", [])
    if len(node.output) < 2 or shape is None or len(shape) != 4 or shape[1] < _FULL * graph.width(shape[1]):
        return False
    tiles = (
        attribute(node, "strides", [1, 1]) == kernel
        and all(size % k == 0 for size, k in zip(shape[2:], kernel, strict=True))
        and not any(attribute(node, "pads", [0]))
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        and all(step == 1 for step in attribute(node, "dilations", [1]))
    )
    readers = graph.readers(node.output[1])
    if not tiles or not readers or any(reader.op_type != "MaxPoolGrad" for reader in readers):
        return False
    pooled = _pool(graph, "MaxPool", graph.to_blocked(node.input[0]), kernel, f"{node.output[0]}/blocked")
    result = [size // k for size, k in zip(shape[2:], kernel, strict=True)]
    graph.set_blocked(node.output[0], pooled, shape=(*shape[:2], *result))
    graph.pooled[node.output[1]] = (node.input[0], node.output[0])
    return True


def write_max_pool_gradient(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write the gradient of a MaxPool that was written above; False when it was not."""
    if node.input[1] not in graph.pooled:
        return False
    source, result = graph.pooled[node.input[1]]
    output, kernel = node.output[0], attribute(node, "kernel_shape", [])
    graph.record_shape(node.input[0], graph.shape(result) or ())
    behind = graph.add(
        "Sub", [graph.to_blocked(source), _spread(graph, graph.blocked[result], kernel)], f"{output}/gap"
    )
    mask = graph.add("HardSigmoid", [behind], f"{output}/mask", alpha=STEEP, beta=1.0)
    count = _pool(graph, "AveragePool", mask, kernel, f"{output}/share")
    count = graph.add("Mul", [count, graph.constant(np.array(kernel[0] * kernel[1], np.float32))], f"{output}/count")
    each = graph.add("Div", [graph.to_blocked(node.input[0]), count], f"{output}/each")
    made = graph.add("Mul", [mask, _spread(graph, each, kernel)], f"{output}/blocked")
    graph.set_blocked(output, made, shape=graph.shape(source))
    return True


def _pool(graph: BlockedGraph, operator: str, value: str, kernel: list[int], hint: str) -> str:
    return graph.add(operator, [value], hint, domain=BLOCKED_DOMAIN, kernel_shape=kernel, strides=kernel)


def _spread(graph: BlockedGraph, value: str, kernel: list[int]) -> str:
    return graph.add("Upsample", [value], f"{value}/spread", domain=BLOCKED_DOMAIN, scales=[1, 1, *kernel])
