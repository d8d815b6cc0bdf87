"""Weights that are computed from constants by more than moves: computed once, here, so that they can be cut."""

from collections.abc import Collection, Sequence
from math import prod

import numpy as np
import onnx_ir
from onnx_ir.convenience import replace_all_uses_with

from onnxadmm.graph.by_hand import divides_by_constant, shift_of
from onnxadmm.graph.constants import FLOATS, Array, constant, new_initializer, stored_bytes, value_names
from onnxadmm.graph.fold import Known, fold
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.shapes import Shapes, infer
from onnxadmm.graph.unread import drop_unread
from onnxadmm.operators.table import find

LARGEST_COMPUTED = 2**25  # elements of a weight and of everything that it is computed from
_ALWAYS_PAYS = 2**16  # bytes that all weights may need more than what they are computed from
_LARGEST_SHARE = 0.1  # of all bytes that the model stores: what is cut saves more than that
#: Elements of all computed weights together, and of what they are computed from; more only where the file is as large.
MOST_COMPUTED = 2**26


def write_out_computed(model: Model, *, cut: Collection[str] | None = None) -> Model:
    """Return a copy whose computed weights are constants of the same names; the model itself where there are none.

    Computed is a float operand that a layer or a normalisation uses as a weight, a vector or a statistic, if
    nothing but constants goes in and some operator on the way is no mere move: Mul of a weight and its scale,
    ConstantOfShape, Range, EyeLike. Random numbers, quantised weights and weights above ``LARGEST_COMPUTED`` elements
    stay as they are, those that are bytes times scales among them, and those with which the model would store a tenth
    more.

    Args:
        model: it is not changed.
        cut: only weights that are among these names, or computed from what is; None for all.
    """
    found = _Search(model).weights()
    if cut is not None and found:
        given = {value.name: value for node in model.ir.graph for value in node.outputs}
        found = [name for name in found if any(value.name in cut for value in _behind(given[name]))]
    if not found:
        return model
    shapes = infer(model)
    result = clone(model)
    values = {value.name: value for node in result.ir.graph for value in node.outputs}
    computed: dict[str, Array] = {}
    left = max(MOST_COMPUTED, model.file_bytes)
    room = max(_ALWAYS_PAYS, int(_LARGEST_SHARE * stored_bytes(model)))
    sources: dict[str, int] = {}
    for name in found:
        array = _evaluate(values[name], shapes, result, dict(computed), left)
        behind = {each.name or "": each.const_value.nbytes for each in _behind(values[name]) if each.const_value}
        more = 0 if array is None else array.nbytes - sum(behind[each] for each in behind.keys() - sources.keys())
        if array is not None and more <= room:
            computed[name] = array
            left -= array.size
            room -= more
            sources |= behind
    if not computed:
        return model
    for name, array in computed.items():
        _replace(result, values[name], array)
    return result


class _Search:
    """Which values of a graph depend on constants alone, and what they are computed by."""

    def __init__(self, model: Model) -> None:
        self._graph = model.ir.graph
        # By value, whether an operator on the way is no move; absent: it depends on more than constants.
        self._computed: dict[str, bool] = {}

    def weights(self) -> list[str]:
        """Return the names of computed weights in the order of the graph."""
        found: dict[str, None] = {}
        for node in self._graph:
            self._record(node)
            if any(value.name in self._computed for value in node.outputs):
                continue  # what it computes is a constant itself: nothing but constants meets this weight
            if node.domain not in ("", "ai.onnx"):
                continue
            operator = find("", node.op_type)
            weights = operator.weights if operator.is_layer else ()
            for index in (*weights, *operator.vectors, *operator.statistics):
                value = node.inputs[index] if index < len(node.inputs) else None
                if value is None or not self._computed.get(value.name or "") or value.is_graph_output():
                    continue
                if not _is_cut_in_bytes(value):
                    found[value.name or ""] = None
        return list(found)

    def _record(self, node: onnx_ir.Node) -> None:
        operator = find("", node.op_type)
        # What is quantised stays in its eight bits.
        if node.domain not in ("", "ai.onnx") or not operator.pure or operator.quantises or node.op_type == "Constant":
            return
        operands = [value for value in node.inputs if value is not None]
        if not all(self._is_constant(value) or value.name in self._computed for value in operands):
            return
        # Behind the data of a move stand shapes and indices, which may be computed anyhow.
        moved = operands[: operator.data_count(len(operands))]
        # Behind a move that leaves zeros zeros, a weight is cut at its origin.
        traced = operator.moves is not None and operator.keeps_zero
        computed = not traced or any(self._computed.get(value.name or "") for value in moved)
        for value in node.outputs:
            if value.name:
                self._computed[value.name] = computed

    def _is_constant(self, value: onnx_ir.Value) -> bool:
        node = value.producer()
        return value.is_initializer() or (node is not None and node.op_type == "Constant")


def _is_cut_in_bytes(value: onnx_ir.Value) -> bool:
    """Whether a weight is bytes times scales, as a Cast and a Mul write what DequantizeLinear is for.

    It is cut where it stands in its eight bits. That takes operators that leave zeros zeros, or a zero point to take
    off, which a byte is equal to.
    """
    behind = _behind(value)
    steps = [node for each in behind if (node := each.producer()) is not None and node.op_type != "Constant"]
    if not all(
        find(node.domain, node.op_type).keeps_zero or shift_of(node) is not None or divides_by_constant(node)
        for node in steps
    ):
        return False
    stored = [each.const_value for each in behind if each.const_value is not None]
    in_bytes = sum(tensor.size for tensor in stored if tensor.dtype.is_integer() and tensor.dtype.bitwidth <= 8)
    return 2 * in_bytes > sum(tensor.size for tensor in stored)


def _behind(value: onnx_ir.Value) -> list[onnx_ir.Value]:
    """Return a value, and everything that it is computed from."""
    found, pending = {value: None}, [value]
    while pending:
        node = pending.pop().producer()
        for operand in () if node is None else node.inputs:
            if operand is not None and operand not in found:
                found[operand] = None
                pending.append(operand)
    return list(found)


def _evaluate(value: onnx_ir.Value, shapes: Shapes, model: Model, known: dict[str, Array], left: int) -> Array | None:
    """Return a float value that depends on constants alone; None where it is too large, or cannot be computed.

    Args:
        known: arrays by name; what is computed on the way is added.
        left: elements that all that is computed may have together.
    """
    if shapes.dtype(value.name or "") not in FLOATS:
        return None
    pending = [value]
    while pending:
        current = pending[-1]
        name = current.name or ""
        node = current.producer()
        if name in known or node is None or node.op_type == "Constant":
            array = known[name] if name in known else constant(current)
            if array is None:
                return None
            known[name] = array
            pending.pop()
            continue
        shape = shapes.shape(name)
        if shape is None or prod(shape) > min(LARGEST_COMPUTED, left):
            return None
        missing = [operand for operand in node.inputs if operand is not None and operand.name not in known]
        if missing:
            pending.extend(missing)
            continue
        results = _run(node, known, model)
        if results is None:
            return None
        left -= sum(result.size for result in results)
        named = (output.name for output in node.outputs if output.name)
        known.update(zip(named, results, strict=True))
    return known[value.name or ""]


def _run(node: onnx_ir.Node, known: dict[str, Array], model: Model) -> Sequence[Array] | None:
    if node.op_type == "BatchNormalization" and _by_its_own_statistics(node):
        return _normalised([known[value.name or ""] for value in node.inputs if value is not None], node)
    operands = [None if value is None else Known.constant(known[value.name or ""]) for value in node.inputs]
    results = fold(onnx_ir.serde.serialize_node(node), operands, model.ir.opset_imports.get("", 1))
    return None if results is None else [result.first for result in results]


def _by_its_own_statistics(node: onnx_ir.Node) -> bool:
    """Whether a BatchNormalization is in training mode, as exporters standardise weights with; old ones say it by five
    results."""
    return node.attributes.get_int("training_mode", int(len(node.outputs) > 3)) == 1


def _normalised(operands: Sequence[Array], node: onnx_ir.Node) -> Sequence[Array]:
    """Results of a BatchNormalization in training mode, of all its versions."""
    data, scale, shift, mean, variance = operands
    axes = (0, *range(2, data.ndim))
    seen = data.mean(axis=axes, dtype=np.float64), data.var(axis=axes, dtype=np.float64)
    along = [-1 if axis == 1 else 1 for axis in range(data.ndim)]
    epsilon, momentum = (
        node.attributes.get_float(name, value) for name, value in (("epsilon", 1e-5), ("momentum", 0.9))
    )
    factor = scale.astype(np.float64) / np.sqrt(seen[1] + epsilon)
    result = (data - seen[0].reshape(along)) * factor.reshape(along) + shift.reshape(along)
    running = [old * momentum + new * (1 - momentum) for old, new in zip((mean, variance), seen, strict=True)]
    results = [result, *running, *seen]
    return [array.astype(data.dtype) for array in results[: len(node.outputs)]]


def _replace(model: Model, value: onnx_ir.Value, array: Array) -> None:
    """Put a constant in the place of a computed value, and drop what nobody reads any more."""
    name = value.name or ""
    value.name = None
    stored = new_initializer(model, name, np.asarray(array), taken=value_names(model))
    replace_all_uses_with(value, stored)
    drop_unread(model, [value])
