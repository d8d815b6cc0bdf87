"""Reverse-mode differentiation: the backward pass of a graph, in operators that any onnxruntime runs.

Nodes are visited from the loss upwards. Each asks the table of operators for its gradient, hands it the sum of what
arrived for its results, and passes what comes back on to its operands.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import find
from onnxadmm.train.backward.own import gradients_of_rule
from onnxadmm.train.gradients.writer import Backward, Made
from onnxadmm.train.prepare.differentiable import gradient_inputs, trace_gradients
from onnxadmm.train.prepare.nodes import import_domain, label
from onnxadmm.train.prepare.workspace import Workspace


def append_backward(forward: onnx.ModelProto, *, loss: str, names: Mapping[str, str], single: bool) -> onnx.ModelProto:
    """Append the backward pass of ``loss`` to a graph.

    Args:
        forward: left as it is; its nodes in order.
        loss: name of a float32 scalar.
        names: what the gradient of each graph input to differentiate by is to be called.
        single: whether it runs in sessions of one thread only.

    Returns:
        The graph with a further output for every gradient that was found; among its nodes are open ones, see
    ``onnxadmm.train.backward.open_nodes``.

    Raises:
        NotTrainableError: an operator has no gradient, or a shape is not known.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(forward)
    space = Workspace(copy)
    space.infer()
    trace = trace_gradients(space.graph.node, weights=frozenset(names), logits=loss)
    arrived: dict[str, list[str]] = {loss: [space.constant("onnxadmm.one", np.array(1.0, np.float32))]}
    made: list[onnx.NodeProto] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def total(value: str) -> str:
        """The sum of what arrived for a value, empty where nothing did."""
        parts = arrived.get(value, [])
        if len(parts) > 1:
            node = space.node("Add" if len(parts) == 2 else "Sum", parts, f"{value}/total")
            made.append(node)
            parts[:] = [node.output[0]]
        return parts[0] if parts else ""

    for node in reversed(space.graph.node):
        if not trace.holds(node):
            continue
        upstream = [total(name) if name else "" for name in node.output]
        if not any(upstream):
            continue
        wanted = {name for name in gradient_inputs(node) if name in trace.carries}
        write = Backward(space, node, wanted, single=single)
        gradients = _gradients(write, node, upstream, wanted)
        made.extend(write.nodes)
        shapes.update(write.shapes)
        for operand, gradient in zip(node.input, gradients, strict=True):
            if gradient is not None and operand in wanted:
                arrived.setdefault(operand, []).append(gradient)
    found = {weight: total(weight) for weight in names}
    _name_outputs(made, {weight: value for weight, value in found.items() if value}, names)
    model = space.as_model()
    graph = model.graph
    graph.node.extend(made)
    for node in made:
        if node.domain:
            import_domain(model, node.domain)
    graph.output.extend(
        helper.make_tensor_value_info(names[weight], onnx.TensorProto.FLOAT, space.shape(weight))
        for weight, value in found.items()
        if value
    )
    graph.value_info.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    return model


def _gradients(write: Backward, node: onnx.NodeProto, upstream: list[str], wanted: set[str]) -> Made:
    """What the table writes for a node."""
    operator = find(node.domain, node.op_type)
    if operator.backward is not None:
        made: Made = operator.backward(write, node, upstream)
        return made
    if not callable(operator.gradient):
        raise NotTrainableError(
            label(node),
            expected="an operator with a gradient between the weights and the loss",
            found=f"{node.op_type}, which has none",
            way_out="replace it, or leave the weights before it out of training",
        )
    some = next(name for name in upstream if name)
    given = [name or write.zeros_like(result, some) for name, result in zip(upstream, node.output, strict=True)]
    return gradients_of_rule(write, node, given, needed=wanted)


def _name_outputs(made: list[onnx.NodeProto], found: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Let the gradients of weights have their names, in place; one that belongs to several is copied."""
    own = {output for node in made for output in node.output}
    renamed: dict[str, str] = {}
    copies: list[onnx.NodeProto] = []
    for weight, value in found.items():
        if value in own and value not in renamed:
            renamed[value] = names[weight]
        else:
            copies.append(helper.make_node("Identity", [value], [names[weight]], names[weight]))
    made.extend(copies)
    for node in made:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                if value in renamed:
                    values[index] = renamed[value]
