"""Integer products that come out exact on every processor, for the copies of a model that a proof runs.

onnxruntime multiplies unsigned bytes by signed ones with the instruction ``pmaddubsw`` on x86-64 processors without
VNNI. That adds each pair of products in 16 bits and cuts the sum off at 32,767, so 255 * 127 + 255 * 127 gives 32,767
instead of 64,770. What is cut off depends on which rows meet in a pair: a network, and the same network without some
of its rows, then differ by thousands although nothing is wrong with either. Unsigned bytes by unsigned ones are added
in 32 bits everywhere, and so are signed ones by signed ones. Hence a signed second operand is written with another
zero point, which changes no product::

    w - z = (w + 128) - (z + 128),   w, z in -128..127 (int8),   w + 128, z + 128 in 0..255 (uint8)
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
import onnx_ir

from onnxadmm.graph.constants import Array, constant, free_name, new_initializer, value_names
from onnxadmm.graph.functions import inline_functions
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.unread import drop_unread
from onnxadmm.operators.table import find

_OFFSET: Final = 128
_FREE_INITIALIZERS: Final = 4  # the first IR version whose initializers need not be inputs


def with_exact_integers(model: Model) -> Model:
    """Return a copy that computes the same and multiplies no signed bytes; the model itself where it has no products.

    Constant operands are written anew, one at a time while the copy is serialised, so that it takes no more memory
    than the model. What is computed while running is shifted by nodes in front of the product.

    Args:
        model: the model; it is not changed. Operands of unknown type stay: what a subgraph is fed, or an operator of
            another domain computes, where the file states no type and the product has no zero point.
    """
    within = [node for function in model.ir.functions.values() for node in function.all_nodes()]
    if not any(map(_operands, (*model.ir.graph.all_nodes(), *within))):
        return model
    # A function body holds no initializers, and one call may read other types than the next.
    copy = clone(inline_functions(model) if any(map(_operands, within)) else model)
    _Recoding(copy).run()
    return copy


def is_quantised(model: Model) -> bool:
    """Tell whether a model rounds to numbers of eight bits, or adds up products of such."""
    return any(node.op_type == "QuantizeLinear" or _operands(node) for node in model.ir.graph.all_nodes())


def _operands(node: onnx_ir.Node) -> tuple[int, int] | None:
    """Return where the second operand and its zero point stand; None for all operators but products of bytes."""
    return find(node.domain, node.op_type).multiplies_bytes


class _Recoding:
    """One pass over a copy of a model.

    Args:
        model: the copy; it is changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._taken = value_names(model)
        self._recoded: dict[tuple[onnx_ir.Value, onnx_ir.Graph | None], onnx_ir.Value] = {}
        self._zero_points: dict[int, onnx_ir.Value] = {}

    def run(self) -> None:
        """Re-code every signed second operand, in subgraphs too."""
        for graph in list(self._model.ir.graphs()):
            for node, operand, point in list(_products(graph)):
                self._visit(graph, node, operand, point)
        drop_unread(self._model, [value for value, _ in self._recoded])

    def _visit(self, graph: onnx_ir.Graph, node: onnx_ir.Node, operand: int, point: int) -> None:
        factor = node.inputs[operand]
        zero = node.inputs[point] if point < len(node.inputs) else None
        if factor is None or not self._is_signed(factor, zero):
            return
        if point >= len(node.inputs):
            node.resize_inputs(point + 1)
        node.replace_input_with(operand, self._shifted(factor, graph, node))
        shifted = self._zero_point(_OFFSET) if zero is None else self._shifted(zero, graph, node)
        node.replace_input_with(point, shifted)
        # onnxruntime 1.19 reads the first zero point of this one wherever there is a second, and crashes without.
        if node.op_type == "ConvInteger" and node.inputs[2] is None:
            node.replace_input_with(2, self._zero_point(0))

    def _is_signed(self, factor: onnx_ir.Value, zero: onnx_ir.Value | None) -> bool:
        # The operators demand one type of both.
        kind = self._type(factor) or (None if zero is None else self._type(zero))
        return kind == onnx_ir.DataType.INT8

    def _type(self, value: onnx_ir.Value) -> onnx_ir.DataType | None:
        """Return the type that a value is stated to have, or takes over from what it is computed from."""
        current: onnx_ir.Value | None = value
        while current is not None and current.dtype is None:
            node, position = current.producer(), current.index()
            if node is None or position is None:
                return None
            if node.op_type == "Cast":
                return onnx_ir.DataType(node.attributes["to"].as_int())
            current = _of_the_same_type(node, position, self._model.ir.opset_imports)
        return None if current is None else current.dtype

    def _shifted(self, value: onnx_ir.Value, graph: onnx_ir.Graph, node: onnx_ir.Node) -> onnx_ir.Value:
        """Return int8 ``value`` + 128 as uint8, of the same shape; ``node`` of ``graph`` is about to read it."""
        fixed = constant(value)
        if fixed is not None and not value.is_graph_input() and self._model.ir.ir_version >= _FREE_INITIALIZERS:
            key: tuple[onnx_ir.Value, onnx_ir.Graph | None] = (value, None)
            if key not in self._recoded:
                self._recoded[key] = self._initializer(value, fixed)
            return self._recoded[key]
        # In a subgraph what another subgraph has computed cannot be seen.
        key = (value, graph)
        if key not in self._recoded:
            self._recoded[key] = self._computed(value, graph, node)
        return self._recoded[key]

    def _zero_point(self, number: int) -> onnx_ir.Value:
        """Return a scalar in place of a zero point that was left out, uint8."""
        if number not in self._zero_points:
            zero = np.array(number, np.uint8)
            self._zero_points[number] = new_initializer(self._model, "zero_point", zero, taken=self._taken)
        return self._zero_points[number]

    def _initializer(self, value: onnx_ir.Value, array: Array) -> onnx_ir.Value:
        name = free_name(f"{value.name}_unsigned", self._taken)

        def recode() -> onnx_ir.TensorProtocol:
            # In two's complement the byte of w + 128 is that of w with its highest bit turned.
            return onnx_ir.Tensor(array.view(np.uint8) ^ np.uint8(_OFFSET), name=name)

        shape, kind = onnx_ir.Shape(array.shape), onnx_ir.DataType.UINT8
        tensor = onnx_ir.LazyTensor(recode, kind, shape, name=name)
        stored = onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(kind), const_value=tensor)
        self._model.ir.graph.register_initializer(stored)
        return stored

    def _computed(self, value: onnx_ir.Value, graph: onnx_ir.Graph, node: onnx_ir.Node) -> onnx_ir.Value:
        # onnxruntime adds no bytes, and has no exclusive or before opset 18.
        self._model.ir.graph.opset_imports.setdefault("", 13)
        wide = self._node("Cast", [value], onnx_ir.DataType.INT32)
        offset = new_initializer(self._model, "offset", np.array(_OFFSET, np.int32), taken=self._taken)
        sums = self._node("Add", [wide.outputs[0], offset], None)
        narrow = self._node("Cast", [sums.outputs[0]], onnx_ir.DataType.UINT8)
        narrow.outputs[0].shape = value.shape
        narrow.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.UINT8)
        graph.insert_before(node, [wide, sums, narrow])
        return narrow.outputs[0]

    def _node(self, operator: str, inputs: list[onnx_ir.Value], to: onnx_ir.DataType | None) -> onnx_ir.Node:
        attributes = [] if to is None else [onnx_ir.AttrInt64("to", to.value)]
        made = onnx_ir.Node("", operator, inputs=inputs, attributes=attributes)
        made.outputs[0].name = free_name("unsigned", self._taken)
        return made


def _products(graph: onnx_ir.Graph) -> Iterator[tuple[onnx_ir.Node, int, int]]:
    for node in graph:
        found = _operands(node)
        if found is not None:
            yield node, *found


def _of_the_same_type(node: onnx_ir.Node, position: int, opsets: Mapping[str, int]) -> onnx_ir.Value | None:
    """Return an operand that by its operator's definition has the type of the result at ``position``."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None
    kind = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
    pairs = zip(node.inputs, schema.inputs, strict=False)  # operands may be left out, and the last one repeated
    return next((operand for operand, formal in pairs if operand is not None and formal.type_str == kind), None)
