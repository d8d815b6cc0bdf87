"""Positions that are all alike, made once and read by several layers: a copy for each, so that they tie none."""

import onnx_ir

from onnxadmm.graph.constants import free_name, value_names
from onnxadmm.graph.model import Model, clone
from onnxadmm.operators.table import find

_REPEATING = frozenset({"Expand", "Tile", "ConstantOfShape"})
_LONGEST = 8  # nodes from where positions are repeated to where layers part
_MARK = "onnxadmm.copy"  # metadata of nodes that ``merge_repeated`` may take back


def write_out_repeated(model: Model) -> Model:
    """Return a copy in which every reader of repeated positions has its own; the model itself where none shares them.

    A mask that is expanded to the heads of one layer and read by the next as well would tie the heads of both, as
    would a state of zeros that two recurrent layers begin with.
    """
    if not any(_shared_chain(node) for node in model.ir.graph):
        return model
    result = clone(model)
    taken = value_names(result)
    for node in list(result.ir.graph):
        chain = _shared_chain(node)
        if not chain:
            continue
        readers = list(dict.fromkeys(use.node for use in chain[-1].outputs[0].uses()))
        last = chain[-1]
        for reader in readers[1:]:
            copies = _copied(chain, taken)
            result.ir.graph.insert_after(last, copies)
            last = copies[-1]
            for index, value in enumerate(reader.inputs):
                if value is chain[-1].outputs[0]:
                    reader.replace_input_with(index, last.outputs[0])
    return result


def merge_repeated(model: Model) -> None:
    """Take copies back, in place, that are still what they were copied from."""
    seen: dict[object, onnx_ir.Node] = {}
    for node in list(model.ir.graph):
        copied = node.metadata_props.pop(_MARK, None)
        if copied is None:
            continue
        inputs = tuple(id(value) for value in node.inputs)
        key = (copied, node.op_type, inputs, tuple(sorted(map(str, node.attributes.values()))))
        first = seen.setdefault(key, node)
        if first is node:
            continue
        for use in tuple(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, first.outputs[0])
        model.ir.graph.remove(node, safe=True)


def _shared_chain(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    """Return the nodes from one that repeats positions to one that several others read; nothing if there is none."""
    if node.op_type not in _REPEATING or node.domain not in ("", "ai.onnx") or _holds_sizes(node):
        return []
    chain = [node]
    while len(chain) <= _LONGEST:
        value = chain[-1].outputs[0]
        uses = tuple(value.uses())
        if value.is_graph_output() or any(use.node.graph is not node.graph for use in uses):
            return []
        readers = {use.node for use in uses}
        if len(readers) > 1:
            return chain
        if not readers:
            return []
        (following,) = readers
        operator = find(following.domain, following.op_type)
        others = [operand for operand in following.inputs if operand is not None and operand is not value]
        if not operator.elementwise or len(following.outputs) != 1 or not all(map(_is_constant, others)):
            return []
        chain.append(following)
    return []


def _holds_sizes(node: onnx_ir.Node) -> bool:
    """Whether the positions are integers, as far as the file says: sizes and indices, which no layer shares."""
    filler = node.attributes.get("value")
    filled = node.op_type == "ConstantOfShape" and filler is not None and not filler.is_ref()
    dtype = filler.as_tensor().dtype if filled and filler is not None else node.outputs[0].dtype
    return dtype is not None and dtype.is_integer()


def _is_constant(value: onnx_ir.Value) -> bool:
    node = value.producer()
    return value.is_initializer() or (node is not None and node.op_type == "Constant")


def _copied(chain: list[onnx_ir.Node], taken: set[str]) -> list[onnx_ir.Node]:
    """Return copies of nodes that follow on each other, the first with the operands of the original."""
    copies: list[onnx_ir.Node] = []
    for number, node in enumerate(chain):
        before = chain[number - 1].outputs[0] if number else None
        inputs = [copies[-1].outputs[0] if value is before and copies else value for value in node.inputs]
        copy = onnx_ir.Node(
            node.domain, node.op_type, inputs, attributes=list(node.attributes.values()), version=node.version
        )
        name = node.outputs[0].name or node.op_type
        copy.outputs[0].name = free_name(f"{name}_copy", taken)
        copy.outputs[0].shape, copy.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        copy.name = copy.outputs[0].name
        for each in (node, copy):
            each.metadata_props[_MARK] = name
        copies.append(copy)
    return copies
