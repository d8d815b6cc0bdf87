"""Shapes of every tensor without running the model, and what is known of small values.

Free input dimensions are replaced by concrete lengths, twice; what differs between the two is dynamic. The walk goes
node by node: ONNX's own inference gives the shapes, ``onnxadmm.graph.fold`` the values that it needs to know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from onnxadmm.graph.boundary import name_node
from onnxadmm.graph.constants import constant
from onnxadmm.graph.fold import Known, fold, small_enough
from onnxadmm.graph.loops import loop_types
from onnxadmm.graph.model import Model
from onnxadmm.graph.plausible import bears_inference, lengths_of, plausible, runs
from onnxadmm.graph.probing import NOTHING, Observed, Probe, is_opaque
from onnxadmm.graph.samples import FreeDimensions, Sample, free_dimensions, is_telling, samples, type_of
from onnxadmm.graph.types import merge_types, standard_twin, type_of_array, weight_bytes
from onnxadmm.operators.call import result_types
from onnxadmm.operators.table import find

Array = NDArray[Any]

_MOST_NODE_VISITS = 20_000  # over all tries of samples; a few seconds
_MOST_RUNS = 20  # of the model, to see what is behind custom operators: all lengths at the first two batches
# ONNX infers these through a function body that needs more context than one node gives.
_SHAPED_AS_OPERAND = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
# In training mode ONNX infers this one only where the statistics are results as well, which nobody needs to name.
_SHAPED_WHEN_TRAINING = "BatchNormalization"
# Below these versions they are functions without inference of their own.
_SHAPED_FROM = {"GreaterOrEqual": 16, "LessOrEqual": 16}
_LARGEST_SUBGRAPH = 2**24  # bytes of weights inside the bodies of one If, Loop or Scan


@dataclass(frozen=True)
class Tensor:
    """What is known of one tensor.

    Attributes:
        dtype: element type.
        shape: at the first sample; None when any length is unknown.
        dynamic: for each axis of ``shape``, whether its length differs at the second sample.
        known: its value, where small.
    """

    dtype: onnx_ir.DataType | None
    shape: tuple[int, ...] | None
    dynamic: tuple[bool, ...] | None
    known: Known | None


@dataclass(frozen=True)
class Shapes:
    """What is known of the tensors of the main graph; of names that are not there, nothing is.

    Attributes:
        tensors: by name.
        samples: the two lengths that each symbol of a free input dimension was given; ``"?1"`` stands for the
            dimensions at axis 1 that have no name.
        contradictions: nodes whose inputs do not fit together at any lengths that were tried.
        batch: length of the inputs' free leading dimensions at the first sample, 1 where none is free.
        sizes: whole shape of one sample of each input of which an axis other than axis 0 is free, at the first sample.
    """

    tensors: Mapping[str, Tensor]
    samples: Sample
    contradictions: tuple[str, ...]
    batch: int
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Lengths of all axes at the first sample of the free input dimensions."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.shape

    def dynamic(self, name: str) -> tuple[bool, ...] | None:
        """For each axis, whether its length varies with the free input dimensions."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.dynamic

    def dtype(self, name: str) -> onnx_ir.DataType | None:
        """Element type; None for what is no tensor."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.dtype

    def value(self, name: str) -> Array | None:
        """Value of a small tensor no element of which depends on a free input dimension.

        Small are integers and booleans of up to 4096 elements and other numbers of up to 64.
        """
        known = self._known(name)
        return None if known is None or known.free.any() else known.first

    def partial(self, name: str) -> tuple[int | None, ...] | None:
        """Elements of a small 1-D integer tensor, None for each that depends on a free input dimension."""
        known = self._known(name)
        if known is None or known.first.ndim != 1 or known.first.shape != known.second.shape:
            return None
        if not np.issubdtype(known.first.dtype, np.integer):
            return None
        fixed = ~known.free & (known.first == known.second)
        return tuple(int(element) if keep else None for element, keep in zip(known.first, fixed, strict=True))

    def _known(self, name: str) -> Known | None:
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.known


def infer(model: Model) -> Shapes:
    """Infer shapes and small values of all tensors of the main graph.

    Weights are not read. Operators of unknown domains give what the file states about their outputs, or what is seen
    when the model is run, see ``Probe``; nothing is known about sequences and optional values. Lengths that contradict
    the graph (a window larger than the image) are tried again with others; when none fits, those with the fewest
    contradictions stand. What ``model.input_shapes`` states is not tried: it is so, and another length beside it.
    """
    free = free_dimensions(model)
    protos: dict[str, onnx.NodeProto | None] = {}
    probe = Probe(model)
    best: Shapes | None = None
    fewest = (0, 0)
    visits = 0
    accepted: list[dict[str, int]] = []
    for sample in samples(free):
        first = {symbol: pair[0] for symbol, pair in sample.items()}
        if not is_telling(free, sample) and any(other != first for other in accepted):
            continue  # the model accepts several lengths, so these are not constants
        walk = _Walk(model, free, sample, protos)
        shapes = walk.run()
        observed = probe.observe(walk.hidden(), walk.inputs())
        if observed:
            shapes = _Walk(model, free, sample, protos, observed).run()
        faults = len(shapes.contradictions) + (observed is None), walk.second_faults
        if not faults[0]:
            accepted.append(first)
        if best is None or faults < fewest:
            best, fewest = shapes, faults
        visits += len(model.ir.graph)
        if not any(fewest) or not free.symbols or visits > _MOST_NODE_VISITS or probe.runs > _MOST_RUNS:
            break
    assert best is not None  # there is always a first sample
    return best


@dataclass(frozen=True)
class _Info:
    types: tuple[onnx.TypeProto | None, onnx.TypeProto | None]
    known: Known | None


class _Walk:
    """One pass over the main graph at one pair of samples."""

    def __init__(
        self,
        model: Model,
        free: FreeDimensions,
        sample: Sample,
        protos: dict[str, onnx.NodeProto | None],
        observed: Observed = NOTHING,
    ) -> None:
        self._model = model
        self._free = free
        self._sample = sample
        self._lengths = tuple({symbol: pair[number] for symbol, pair in sample.items()} for number in (0, 1))
        self._protos = protos
        self._observed = observed
        self._opsets = [
            onnx.OperatorSetIdProto(domain=domain, version=version)
            for domain, version in model.ir.opset_imports.items()
        ]
        self._infos: dict[str, _Info] = {}
        self._contradictions: list[str] = []
        #: Nodes whose inputs do not fit together at the second sample: less is known of sizes behind them.
        self.second_faults = 0

    def run(self) -> Shapes:
        graph = self._model.ir.graph
        symbols: dict[str, dict[int, str]] = {}
        for (name, axis), symbol in self._free.symbols.items():
            symbols.setdefault(name, {})[axis] = symbol
        for value in graph.inputs:
            self._record(value, self._stated(value, symbols.get(value.name or "", {})))
        for value in graph.initializers.values():
            self._record_constant(value)
        for position, node in enumerate(graph):
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                self._record_constant(node.outputs[0])
                continue
            try:
                self._visit(node, f"{position}")
            except Exception as error:
                name_node(error, node)
                raise
        tensors = {name: _summary(info) for name, info in self._infos.items()}
        batch = max((self._sample[symbol][0] for symbol in self._free.batch), default=1)
        return Shapes(tensors, self._sample, tuple(self._contradictions), batch, self._sizes(tensors))

    def _sizes(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        symbols = self._free.symbols
        found: dict[str, tuple[int, ...]] = {}
        for name in dict.fromkeys(name for name, axis in symbols if axis > 0):
            shape = tensors[name].shape
            if shape is not None:
                found[name] = (1 if (name, 0) in symbols else shape[0], *shape[1:])
        return found

    def hidden(self) -> list[str]:
        """Tensors that may come from a custom operator and whose shape nobody knows."""
        names = [value.name for node in self._model.ir.graph if is_opaque(node) for value in node.outputs if value.name]
        return [name for name in names if None in map(lengths_of, self._infos[name].types)]

    def inputs(self) -> Observed:
        """Types of the inputs of the main graph."""
        names = [value.name for value in self._model.ir.graph.inputs if value.name]
        return {name: self._infos[name].types for name in names if name in self._infos}

    def _record(self, value: onnx_ir.Value, info: _Info) -> None:
        if value.name:
            self._infos[value.name] = info

    def _stated(self, value: onnx_ir.Value, symbols: Mapping[int, str]) -> _Info:
        first, second = (type_of(value, lengths, symbols) for lengths in self._lengths)
        return _Info((first, second), None)

    def _record_constant(self, value: onnx_ir.Value) -> None:
        """Note a constant: type and shape from its tensor's description, the value only where it is small."""
        node = value.producer()
        attribute = None if node is None else node.attributes.get("value")
        if value.const_value is not None and value.is_initializer():
            dtype, shape = value.const_value.dtype, tuple(value.const_value.shape.numpy())
        elif attribute is not None and not attribute.is_ref():
            dtype, shape = attribute.as_tensor().dtype, tuple(attribute.as_tensor().shape.numpy())
        else:
            array = constant(value)
            if array is None or array.dtype == np.object_:
                return
            dtype, shape = onnx_ir.DataType.from_numpy(array.dtype), array.shape
        stated = onnx.helper.make_tensor_type_proto(dtype.value, shape)
        content = constant(value) if small_enough(dtype, prod(shape)) else None
        self._record(value, _Info((stated, stated), None if content is None else Known.constant(content)))

    def _visit(self, node: onnx_ir.Node, key: str) -> None:
        inputs = [None if value is None or not value.name else self._infos.get(value.name) for value in node.inputs]
        inferred: tuple[dict[str, onnx.TypeProto], ...] = ({}, {})
        proto = self._proto(node, key)
        if proto is not None:
            inferred = tuple(self._infer(node, proto, inputs, number) for number in (0, 1))
        for value in node.outputs:
            if not value.name:
                continue
            stated = self._observed.get(value.name) or self._stated(value, {}).types
            first, second = (
                merge_types(types.get(value.name), given) for types, given in zip(inferred, stated, strict=True)
            )
            self._infos[value.name] = _Info((first, second), None)
        if proto is not None and node.domain in ("", "ai.onnx"):
            self._fold(node, proto, inputs)

    def _proto(self, node: onnx_ir.Node, key: str) -> onnx.NodeProto | None:
        """The node as a message, kept for the next try; None when nobody can look at it, its bodies being too large."""
        if key not in self._protos:
            weight = 0
            for attribute in node.attributes.values():
                if attribute.type == onnx_ir.AttributeType.GRAPH and not attribute.is_ref():
                    weight += weight_bytes(attribute.as_graph())
            if weight > _LARGEST_SUBGRAPH:
                return None
            proto = onnx_ir.serde.serialize_node(node)
            self._protos[key] = proto if self._bears_inference(node, proto) else None
        return self._protos[key]

    def _bears_inference(self, node: onnx_ir.Node, proto: onnx.NodeProto) -> bool:
        function = self._model.ir.functions.get(node.op_identifier())
        if function is None:
            return bears_inference([proto], self._model.ir.opset_imports)
        return bears_inference(onnx_ir.serde.serialize_function(function).node, function.opset_imports)

    def _infer(
        self, node: onnx_ir.Node, proto: onnx.NodeProto, inputs: Sequence[_Info | None], number: int
    ) -> dict[str, onnx.TypeProto]:
        """Types of the outputs at one sample, by name; empty when nothing is known."""
        types = {}
        data = {}
        for value, info in zip(node.inputs, inputs, strict=True):
            if value is None or not value.name:
                continue
            given = None if info is None else info.types[number]
            if info is None or given is None:
                types[value.name] = onnx.TypeProto()
                continue
            types[value.name] = given
            if info.known is not None:
                data[value.name] = numpy_helper.from_array((info.known.first, info.known.second)[number])
        complete = all(lengths_of(given) is not None for given in types.values())
        try:
            results = self._infer_types(node, proto, types, data, number)
            fault = complete and not (plausible(proto, types, results) and runs(proto, types, data))
        except Exception:  # onnx raises several classes for inputs that do not fit, none of them public
            results, fault = {}, complete
        if fault and number == 0:
            self._contradictions.append(node.name or f"{node.op_type} ({', '.join(proto.output)})")
        self.second_faults += fault and number == 1
        return {} if fault else results

    def _infer_types(
        self,
        node: onnx_ir.Node,
        proto: onnx.NodeProto,
        types: dict[str, onnx.TypeProto],
        data: dict[str, onnx.TensorProto],
        number: int,
    ) -> dict[str, onnx.TypeProto]:
        function = self._model.ir.functions.get(node.op_identifier())
        if function is not None:
            given = [types[name] if name else onnx.TypeProto() for name in proto.input]
            outputs = shape_inference.infer_function_output_types(
                onnx_ir.serde.serialize_function(function), given, list(proto.attribute)
            )
            return dict(zip(proto.output, outputs, strict=False))
        domain = "" if node.domain == "ai.onnx" else node.domain
        operator = find(domain, node.op_type)
        if operator.shaped_like is not None:
            domain, proto = "", standard_twin(operator, proto)
        version = self._model.ir.opset_imports.get(domain)
        known = version is not None and onnx.defs.has(proto.op_type, version, domain)
        if operator.shape is not None and (domain or not known):
            return result_types(operator.shape, proto, types)
        if version is None or not known:
            return {}
        training = node.op_type == _SHAPED_WHEN_TRAINING and node.attributes.get_int("training_mode", 0) == 1
        if not domain and (node.op_type in _SHAPED_AS_OPERAND or (training and len(proto.output) == 1)):
            return {proto.output[0]: types[proto.input[0]]}
        schema = onnx.defs.get_schema(proto.op_type, max(version, _SHAPED_FROM.get(proto.op_type, 0)), domain)
        if proto.op_type in ("If", "Loop", "Scan"):
            # Bodies see the whole outer scope.
            outer = {name: info.types[number] for name, info in self._infos.items() if name not in types}
            types = types | {name: given for name, given in outer.items() if given is not None}
        results = shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=self._opsets, ir_version=self._model.ir.ir_version
        )
        if proto.op_type == "Loop":
            kept = loop_types(proto, types, self._opsets, ir_version=self._model.ir.ir_version)
            return dict(results) | kept
        return dict(results)

    def _fold(self, node: onnx_ir.Node, proto: onnx.NodeProto, inputs: Sequence[_Info | None]) -> None:
        results: list[Known] | None
        if node.op_type in ("Shape", "Size"):
            results = _shape_value(node, inputs[0])
        else:
            present = [info for value, info in zip(node.inputs, inputs, strict=True) if value is not None]
            if not present or any(info is None or info.known is None for info in present):
                return
            if not all(self._is_small(value) for value in node.outputs if value.name):
                return
            known = [None if info is None else info.known for info in inputs]
            results = fold(proto, known, self._model.ir.opset_imports.get("", 1))
        named = [value for value in node.outputs if value.name]
        if results is None or len(results) != len(named):
            return
        for value, result in zip(named, results, strict=True):
            if small_enough(onnx_ir.DataType.from_numpy(result.first.dtype), result.first.size):
                types = tuple(type_of_array(array) for array in (result.first, result.second))
                self._infos[value.name or ""] = _Info((types[0], types[1]), result)

    def _is_small(self, value: onnx_ir.Value) -> bool:
        for given in self._infos[value.name or ""].types:
            lengths = lengths_of(given)
            if given is None or lengths is None:
                return False
            if not small_enough(onnx_ir.DataType(given.tensor_type.elem_type), prod(lengths)):
                return False
        return True


def _shape_value(node: onnx_ir.Node, info: _Info | None) -> list[Known] | None:
    """Value of Shape (with ``start`` and ``end`` of opset 15) or Size."""
    first, second = (None, None) if info is None else (lengths_of(given) for given in info.types)
    if first is None or second is None or len(first) != len(second):
        return None
    if node.op_type == "Size":
        sizes = np.array(prod(first), dtype=np.int64), np.array(prod(second), dtype=np.int64)
        return [Known(*sizes, np.array(first != second))]
    end = node.attributes.get_int("end", len(first))
    wanted = slice(node.attributes.get_int("start", 0), end)
    return [Known.dimensions(first[wanted], second[wanted])]


def _summary(info: _Info) -> Tensor:
    first, second = info.types
    dtype = None
    if first is not None and first.HasField("tensor_type") and first.tensor_type.elem_type:
        dtype = onnx_ir.DataType(first.tensor_type.elem_type)
    shape, other = lengths_of(first), lengths_of(second)
    if shape is None:
        return Tensor(dtype, None, None, info.known)
    if other is None or len(other) != len(shape):
        return Tensor(dtype, shape, (True,) * len(shape), info.known)
    return Tensor(dtype, shape, tuple(a != b for a, b in zip(shape, other, strict=True)), info.known)
