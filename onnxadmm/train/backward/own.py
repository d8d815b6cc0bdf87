"""Gradients that rules from outside write: the engine's builder sees a stand-in, whose gradient is written here.

The builder differentiates operators that it knows, and those whose gradient has been registered by name. So a node with
a gradient of its own is shown to it as ``ATen`` with a name of its own, whose registered gradient is another such
stand-in; in the graph that comes back, the first becomes the node again and the second what the rule writes.
"""

from collections.abc import Collection, Sequence

import onnx
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import find
from onnxadmm.train.engine import register_stand_in
from onnxadmm.train.lowering.writer import Writer
from onnxadmm.train.prepare.differentiable import gradient_inputs
from onnxadmm.train.prepare.nodes import attribute, import_domain, label, sort_nodes
from onnxadmm.train.prepare.workspace import Workspace

_DOMAIN, _OPERATOR = "org.pytorch.aten", "ATen"


def has_own_gradient(node: onnx.NodeProto) -> bool:
    """Whether a rule writes the gradient of a node."""
    return callable(find(node.domain, node.op_type).gradient)


def show_stand_ins(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Put stand-ins in the place of nodes with a gradient of their own; return these by the stand-in's name."""
    own: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        if not has_own_gradient(node):
            continue
        name = f"onnxadmm.own.{len(own)}"
        own[name] = onnx.NodeProto()
        own[name].CopyFrom(node)
        wanted = set(gradient_inputs(node))
        given = [index for index, operand in enumerate(node.input) if operand in wanted]
        register_stand_in(name, results=len(node.output), operands=given)
        stand_in = helper.make_node(
            _OPERATOR, node.input, node.output, node.name, domain=_DOMAIN, operator=name, overload_name=""
        )
        node.CopyFrom(stand_in)
    if own:
        import_domain(model, _DOMAIN)
    return own


def write_own_gradients(model: onnx.ModelProto, own: dict[str, onnx.NodeProto]) -> onnx.ModelProto:
    """Put the nodes back, and write their gradients in the place of the stand-ins'.

    Raises:
        NotTrainableError: a rule does not give one gradient per operand.
    """
    imports = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    outputs = list(model.graph.output)
    space = Workspace(model)
    for node in space.graph.node:
        if (name := _stand_in(node)) in own:
            node.CopyFrom(own[name])
    space.infer()  # with the nodes in their places, whose results' shapes a gradient may ask for
    nodes: list[onnx.NodeProto] = []
    for node in space.graph.node:
        name = _stand_in(node)
        nodes.extend(_write(space, own[name.removesuffix("/gradient")], node) if name else [node])
    result = space.as_model()
    del result.graph.node[:], result.opset_import[:], result.graph.output[:]
    result.graph.node.extend(sort_nodes(nodes))
    result.graph.output.extend(outputs)
    result.opset_import.extend(imports)
    for node in own.values():
        import_domain(result, node.domain)
    return result


def _stand_in(node: onnx.NodeProto) -> str:
    """The name of a stand-in, of a node or its gradient; empty for other nodes."""
    return attribute(node, "operator", "") if (node.domain, node.op_type) == (_DOMAIN, _OPERATOR) else ""


def _write(space: Workspace, node: onnx.NodeProto, stand_in: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The gradient of a node: the stand-in's inputs are the gradients of its results, its outputs those of operands."""
    write = Writer(space, node)
    wanted = set(gradient_inputs(node))
    given = [index for index, operand in enumerate(node.input) if operand in wanted]
    outputs = {index: output for index, output in zip(given, stand_in.output, strict=True) if output}
    made = gradients_of_rule(write, node, list(stand_in.input), needed={node.input[index] for index in outputs})
    for index, output in outputs.items():
        result = made[index]
        assert result is not None
        write.set_output(result, output)
    return write.nodes


def gradients_of_rule(
    write: Writer, node: onnx.NodeProto, upstream: Sequence[str], *, needed: Collection[str]
) -> Sequence[str | None]:
    """What a rule writes: the gradient of each operand.

    Args:
        needed: operands that must have one.

    Raises:
        NotTrainableError: the rule does not give one gradient per operand, or none of one that must have one.
    """
    gradient = find(node.domain, node.op_type).gradient
    assert callable(gradient)
    made: Sequence[str | None] = gradient(write, node, upstream)
    if len(made) != len(node.input):
        raise NotTrainableError(
            label(node),
            expected=f"{len(node.input)} gradients of its rule, one per operand, None where there is none",
            found=str(len(made)),
            way_out="mend the gradient of the rule",
        )
    bare = next((name for name, result in zip(node.input, made, strict=True) if result is None and name in needed), "")
    if bare:
        raise NotTrainableError(
            label(node),
            expected=f"a gradient of its operand {bare}",
            found="None",
            way_out="let the rule name this operand among its indices, or give its gradient",
        )
    return made
