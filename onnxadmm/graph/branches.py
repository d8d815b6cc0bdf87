"""If with a condition that is known before running: the branch that is taken, written out in its place."""

from collections import Counter

import onnx_ir
from onnx_ir.convenience import replace_all_uses_with

from onnxadmm.graph.constants import constant, free_name, new_initializer, value_names
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.shapes import infer
from onnxadmm.graph.unread import drop_unread, take_apart


def write_out_branches(model: Model) -> Model:
    """Return a copy in which no If of the main graph has a known condition; the model itself where none has one.

    A condition is known when it follows from constants and from lengths that no free input dimension decides. Values
    and nodes of a branch that would take a name of the main graph, or of another branch, get a new one.
    """
    if not any(_is_if(node) for node in model.ir.graph):
        return model
    result, changed = clone(model), False
    # What a branch gives may decide another If, or hold one.
    while decided := _decided(result):
        changed = True
        taken = value_names(result)
        places = Counter(name for graph in result.ir.graphs() for name in _names_of(graph))
        for node, taken_branch in decided:
            _write_out(result, node, taken_branch, taken, places)
    return result if changed else model


def _is_if(node: onnx_ir.Node) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _decided(model: Model) -> list[tuple[onnx_ir.Node, onnx_ir.Graph]]:
    """Return every If whose condition is known, with the branch that is taken."""
    choices = [node for node in model.ir.graph if _is_if(node)]
    if not choices:
        return []
    shapes = infer(model)
    found = []
    for node in choices:
        condition = node.inputs[0]
        value = None if condition is None else shapes.value(condition.name or "")
        if value is None and condition is not None:
            value = constant(condition)
        if value is not None and value.size == 1:
            found.append((node, node.attributes["then_branch" if value.all() else "else_branch"].as_graph()))
    return found


def _write_out(model: Model, node: onnx_ir.Node, branch: onnx_ir.Graph, taken: set[str], places: Counter[str]) -> None:
    """Move the nodes and constants of a branch in front of its If, which goes.

    Args:
        taken: names that are in use.
        places: in how many graphs of the model each name is in use; kept up to date.
    """
    results = list(branch.outputs)
    branch.outputs.clear()
    # The branch's own names are among the taken ones: each is free again once, for the value that has it.
    own = set(branch.initializers) | {value.name or "" for inner in branch for value in inner.outputs}
    places.subtract(_names_of(branch))
    taken -= {name for name in own if places[name] <= 0}
    for name, value in list(branch.initializers.items()):
        tensor = value.const_value
        branch.initializers.pop(name)
        assert tensor is not None  # the checker has seen to it
        stored = new_initializer(model, name, tensor.numpy(), taken=taken)
        places[stored.name or ""] += 1
        results = [stored if result is value else result for result in results]
        replace_all_uses_with(value, stored)
    titles = {each.name for each in model.ir.graph if each.name and each is not node}
    for inner in list(branch):
        branch.remove(inner)
        if inner.name:
            inner.name = free_name(inner.name, titles)
        for value in inner.outputs:
            if value.name:
                value.name = free_name(value.name, taken)
                places[value.name] += 1
        model.ir.graph.insert_before(node, inner)
    for value, result in zip(node.outputs, results, strict=True):
        _hand_over(model, node, value, result)
    condition = node.inputs[0]
    given_up = [attribute.as_graph() for attribute in node.attributes.values() if attribute.as_graph() is not branch]
    for graph in given_up:
        for inside in (graph, *graph.subgraphs()):
            places.subtract(_names_of(inside))
    model.ir.graph.remove(node, safe=True)
    drop_unread(model, [condition, *(value for graph in given_up for value in take_apart(graph))])


def _names_of(graph: onnx_ir.Graph) -> set[str]:
    """Return the names of the values of one graph, without those of graphs inside of it."""
    names = {value.name or "" for value in graph.inputs} | set(graph.initializers)
    return names.union(value.name or "" for inner in graph for value in inner.outputs)


def _hand_over(model: Model, node: onnx_ir.Node, value: onnx_ir.Value, result: onnx_ir.Value) -> None:
    """Let users of an If's result read what the branch computes; a graph output keeps its name behind an Identity."""
    if result.shape is None:
        result.shape = value.shape
    if result.type is None:
        result.type = value.type
    if value.is_graph_output():
        copy = onnx_ir.Node("", "Identity", inputs=[result], name=node.name)
        kept = copy.outputs[0]
        kept.shape, kept.type, kept.doc_string = value.shape, value.type, value.doc_string
        kept.metadata_props.update(value.metadata_props)
        outputs = model.ir.graph.outputs
        for index, output in enumerate(list(outputs)):
            if output is value:
                outputs[index] = kept
        kept.name, value.name = value.name, None
        model.ir.graph.insert_before(node, copy)
    replace_all_uses_with(value, result)
