"""Helpers on protobuf nodes and models: reading and setting attributes, branches, order, operator sets."""

import onnx
from onnx import helper

from onnxadmm.graph.branches import write_out_branches
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.operators.nodes import attribute, attributes

__all__ = ["attribute", "attributes"]  # from the graph, for the rooms of training


def words(text: str) -> frozenset[str]:
    """Names written one after the other."""
    return frozenset(text.split())


def as_proto(model: onnx.ModelProto | Model) -> onnx.ModelProto:
    """The model as one message with dense weights; a message that is so already is handed back, not copied.

    Raises:
        ModelFileError: the model is broken or too large for one message.
    """
    if isinstance(model, onnx.ModelProto):
        return to_proto(from_proto(model)) if model.graph.sparse_initializer else model
    return to_proto(model)


def write_out_ifs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the branch that is taken in the place of every If whose condition its sizes decide."""
    if all(node.op_type != "If" for node in model.graph.node):
        return model
    return to_proto(write_out_branches(from_proto(model)))


def reads(node: onnx.NodeProto) -> list[str]:
    """Names a node reads, those in the bodies of its control flow included."""
    names = [name for name in node.input if name]
    for item in node.attribute:
        bodies = [item.g] if item.type == onnx.AttributeProto.GRAPH else list(item.graphs)
        for body in bodies:
            for inner in body.node:
                names.extend(reads(inner))
            names.extend(output.name for output in body.output)
    return names


def sort_nodes(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes in an order in which each stands after those it reads, otherwise as they were."""
    producers = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    done = [False] * len(nodes)
    result: list[onnx.NodeProto] = []
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            index = stack[-1]
            waiting = [producers[n] for n in reads(nodes[index]) if n in producers and not done[producers[n]]]
            if waiting and not done[index]:
                stack.extend(waiting)
                continue
            stack.pop()
            if not done[index]:
                done[index] = True
                result.append(nodes[index])
    return result


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set an attribute, replacing one of the same name; None removes it."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def label(node: onnx.NodeProto) -> str:
    """How messages call a node: ``Conv (node_3)``."""
    return f"{node.op_type} ({node.name or (node.output[0] if node.output else 'unnamed')})"


def import_domain(model: onnx.ModelProto, domain: str) -> None:
    """Let a model use the operators of a domain, in their first version unless it imports another."""
    if all(entry.domain != domain for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default domain a model imports."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    return 1
