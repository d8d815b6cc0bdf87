"""What is computed from constants by more than moves: computed once, here, so that it can be cut."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir
from onnx_ir.convenience import replace_all_uses_with

from onnxadmm.graph.by_hand import divides_by_constant, shift_of
from onnxadmm.graph.constants import (
    FLOATS,
    Array,
    constant,
    constants_by_name,
    new_initializer,
    stored_bytes,
    value_names,
)
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

    Computed is a float value into which nothing but constants goes, where

    - a layer or a normalisation uses it as a weight, a vector or a statistic, and some operator on the way is no mere
      move: Mul of a weight and its scale, ConstantOfShape, Range, EyeLike;
    - or a layer, or what mixes or counts positions, gives it, and what is made of it meets a value that is no constant:
      the product of a state of zeros and a weight. The weights in it would have to stay whole;
    - or it is a part of a weight whose other parts were read for nothing else.

    Random numbers, quantised weights and weights above ``LARGEST_COMPUTED`` elements stay as they are, those that are
    bytes times scales among them, and those with which the model would store a tenth more.

    Args:
        model: it is not changed.
        cut: only what is among these names, or computed from what is; None for all.
    """
    found = _Search(model).found()
    if not found or (cut is not None and not cut):
        return model
    shapes = infer(model)
    result = clone(model)
    values = {value.name or "": value for node in result.ir.graph for value in node.outputs}
    # Whatever is cut, the same is worth its room: a cut has to find the constants that the search for units saw.
    computed = _worth_their_room(result, {name: values[name] for name in found}, shapes)
    behind = {name: {each.name or "" for each in _behind(values[name])} for name in computed}
    _replace(result, computed)
    parts = _parts_left(result, set[str]().union(*behind.values()), shapes)
    for each in parts.values():
        _replace(result, each)
        computed |= each
    chosen = computed.keys() if cut is None else _chosen(cut, behind, parts)
    if not chosen:
        return model
    if len(chosen) < len(computed):
        result = clone(model)
        _replace(result, {name: array for name, array in computed.items() if name in chosen})
    return result


def _chosen(cut: Collection[str], behind: Mapping[str, set[str]], parts: Mapping[str, Mapping[str, Array]]) -> set[str]:
    """Return the names of what is among those that are cut, or computed from it.

    Args:
        cut: names.
        behind: for each name of what is computed, it and the names of all that it is computed from.
        parts: what ``_parts_left`` gives.
    """
    chosen = {name for name, names in behind.items() if not names.isdisjoint(cut)}
    chosen |= {part for each in parts.values() for part in each if part in cut}
    # A part would be stored twice if the others were not written out as well.
    together = [{*each, *(name for name, names in behind.items() if weight in names)} for weight, each in parts.items()]
    for _ in together:  # each may bring another
        for names in together:
            chosen |= names if names & chosen else set()
    return chosen


def _parts_left(model: Model, behind: Collection[str], shapes: Shapes) -> dict[str, dict[str, Array]]:
    """Return the parts of weights that are still read once other parts have been written out, or are of no use.

    Args:
        model: in which constants stand for what was computed.
        behind: names of what these were computed from.

    Returns:
        arrays by the names of parts, by the name of the weight that Split or Slice takes them from.
    """
    found: dict[str, dict[str, Array]] = {}
    for name, weight in constants_by_name(model).items():
        parts = _parts(weight) if name in behind else []
        if not parts or not _is_weight(weight):
            continue
        size = prod(shapes.shape(name) or ())
        arrays = {part.name or "": _evaluate(part, shapes, model, {}, size) for part in parts}
        known = {part: array for part, array in arrays.items() if array is not None}
        if len(known) == len(arrays) and sum(array.size for array in known.values()) < size:
            found[name] = known
    return found


def _parts(weight: onnx_ir.Value) -> list[onnx_ir.Value]:
    """Return the parts of a constant that are read; none where it is read as a whole as well."""
    found: list[onnx_ir.Value] = []
    for use in weight.uses():
        operator = find(use.node.domain, use.node.op_type)
        picks = operator.moves == "pick" and operator.data_count(len(use.node.inputs)) == 1 and use.idx == 0
        if not picks or any(value.is_graph_output() for value in use.node.outputs):
            return []
        found += [value for value in use.node.outputs if value.uses()]
    return [] if weight.is_graph_output() or weight.is_graph_input() else found


def _worth_their_room(model: Model, found: Mapping[str, onnx_ir.Value], shapes: Shapes) -> dict[str, Array]:
    """Return computed values by name, as many as may be stored."""
    computed: dict[str, Array] = {}
    left = max(MOST_COMPUTED, model.file_bytes)
    room = max(_ALWAYS_PAYS, int(_LARGEST_SHARE * stored_bytes(model)))
    sources: dict[str, int] = {}
    for name, value in found.items():
        array = _evaluate(value, shapes, model, dict(computed), left)
        behind = {each.name or "": each.const_value.nbytes for each in _behind(value) if each.const_value}
        more = 0 if array is None else array.nbytes - sum(behind[each] for each in behind.keys() - sources.keys())
        if array is not None and more <= room:
            computed[name] = array
            left -= array.size
            room -= more
            sources |= behind
    return computed


class _Search:
    """Which values of a graph depend on constants alone, and what they are computed by."""

    def __init__(self, model: Model) -> None:
        self._graph = model.ir.graph
        # By value, whether an operator on the way is no move; absent: it depends on more than constants.
        self._computed: dict[str, bool] = {}

    def found(self) -> list[str]:
        """Return the names of what is to be written out: weights first, each kind in the order of the graph."""
        meeting: list[onnx_ir.Node] = []
        for node in self._graph:
            self._record(node)
            # Where it computes a constant itself, nothing but constants meets there.
            if not any(value.name in self._computed for value in node.outputs):
                meeting.append(node)
        found: dict[str, None] = {}
        for node in meeting:
            if node.domain in ("", "ai.onnx"):
                operator = find("", node.op_type)
                weights = operator.weights if operator.is_layer else ()
                found |= self._to_write_out(node, (*weights, *operator.vectors, *operator.statistics))
        walked = set(found)
        for node in meeting:
            found |= dict.fromkeys(self._mixed(node, walked))
        return list(found)

    def _to_write_out(self, node: onnx_ir.Node, operands: Sequence[int]) -> dict[str, None]:
        """Return names of computed operands."""
        given = (node.inputs[index] for index in operands if index < len(node.inputs))
        return {
            value.name or "": None
            for value in given
            if value is not None and self._computed.get(value.name or "") and _may_be_written_out(value)
        }

    def _mixed(self, node: onnx_ir.Node, walked: set[str]) -> Iterator[str]:
        """Yield what operators give that would lock the weights in it, on the way to the operands of a node.

        Args:
            walked: names of values behind which all is known; more are added.
        """
        pending = _data_of(node)
        while pending:
            value = pending.pop()
            name, maker = value.name or "", value.producer()
            if name in walked or maker is None or not self._computed.get(name):
                continue
            walked.add(name)
            operator = find("", maker.op_type)
            if not operator.is_layer and not operator.normalises and operator.effect == "exact":
                pending += _data_of(maker)
            elif any(_is_weight(each) for each in _behind(value)) and _may_be_written_out(value):
                yield name

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


def _data_of(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Return the operands of a node that are no sizes, indices or limits, the last first."""
    indices = find(node.domain, node.op_type).indices
    return [value for index, value in enumerate(node.inputs) if value is not None and index not in indices][::-1]


def _is_weight(value: onnx_ir.Value) -> bool:
    """Whether a value is a constant of several floats."""
    array = constant(value)
    if array is None or array.size <= 1 or array.dtype == np.object_:
        return False
    return onnx_ir.DataType.from_numpy(array.dtype) in FLOATS


def _may_be_written_out(value: onnx_ir.Value) -> bool:
    return not value.is_graph_output() and not _is_cut_in_bytes(value)


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


def _replace(model: Model, arrays: Mapping[str, Array]) -> None:
    """Put constants in the places of computed values, and drop what nobody reads any more."""
    values = {value.name: value for node in model.ir.graph for value in node.outputs}
    for name, array in arrays.items():
        value = values[name]
        value.name = None
        stored = new_initializer(model, name, np.asarray(array), taken=value_names(model))
        replace_all_uses_with(value, stored)
        drop_unread(model, [value])
