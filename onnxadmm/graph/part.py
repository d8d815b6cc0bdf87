"""Parts of a graph: what some of its results need, from the inputs on or from values that are known."""

from collections.abc import Collection, Mapping

import onnx_ir

from onnxadmm.graph.model import Model, clone


def up_to(model: Model, names: Collection[str]) -> Model:
    """Return a copy that computes the named tensors of the main graph, and holds no node or weight they do not need."""
    return between(model, {}, names)


def between(model: Model, given: Mapping[str, onnx_ir.DataType], names: Collection[str]) -> Model:
    """Return a copy that computes the named tensors of the main graph from others, which become its inputs.

    It holds no node, weight or input that they do not need.

    Args:
        model: it is not changed.
        given: element types of the values that are fed, by name, beside the inputs of the model; constants among them.
        names: results of nodes of the main graph, none of them given.
    """
    copy = clone(model)
    graph = copy.ir.graph
    wanted = [value for node in graph for value in node.outputs if value.name in names]
    for value in [value for node in graph for value in node.outputs if value.name in given]:
        name, value.name = value.name, f"{value.name}/computed"
        assert name is not None  # it was found by its name
        fed = onnx_ir.Value(name=name, type=onnx_ir.TensorType(given[name]))
        value.replace_all_uses_with(fed)
        graph.inputs.append(fed)
    for value in [value for value in graph.initializers.values() if value.name in given]:
        del graph.initializers[value.name or ""]
        value.const_value = None
        if value not in graph.inputs:
            graph.inputs.append(value)
    graph.outputs[:] = wanted
    kept = set(wanted)
    for node in reversed(graph):
        if not any(value.uses() or value in kept for value in node.outputs):
            _let_go(node)
            graph.remove(node, safe=True)
    gone = {value for value in graph.initializers.values() if not value.uses() and value not in kept}
    for value in gone:
        del graph.initializers[value.name or ""]
    # Old files list initializers among the inputs: one that is gone would have to be fed.
    graph.inputs[:] = [value for value in graph.inputs if value not in gone and (value.uses() or not given)]
    return copy


def _let_go(node: onnx_ir.Node) -> None:
    """Make the bodies of a node read nothing any more: what they captured would count as used."""
    for attribute in node.attributes.values():
        if attribute.is_ref() or attribute.type is not onnx_ir.AttributeType.GRAPH:
            continue
        for inner in attribute.as_graph():
            _let_go(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
