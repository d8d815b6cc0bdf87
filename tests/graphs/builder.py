"""A graph under construction: nodes, constants in every form exporters write them, shapes by ONNX's own inference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from tests.graphs.choices import Choices

Array = NDArray[np.generic]
Attribute = int | float | str | Sequence[int] | Sequence[float] | TensorProto | onnx.GraphProto

#: Stands for the batch wherever it is symbolic. A number no other axis is likely to have.
SYMBOLIC_BATCH = 3
#: For each version of the default operator set, the IR version that came with it.
IR_VERSIONS = dict(zip(range(9, 25), (4, 5, 6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12), strict=True))

#: Below these versions they are functions whose shapes onnx does not infer from one node.
SHAPED_FROM = {"GreaterOrEqual": 16, "LessOrEqual": 16}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: name, shape with the batch as a number, element type."""

    name: str
    shape: tuple[int, ...]
    dtype: int = TensorProto.FLOAT

    @property
    def rank(self) -> int:
        return len(self.shape)


class GraphBuilder:
    """Collects nodes; every ``node`` call returns outputs whose shapes onnx inferred.

    Args:
        choices: where decisions come from.
        opset: version of the default operator set, 9 to 24.
        symbolic_batch: the batch axis is the symbol ``N``, else the number ``batch``.
    """

    def __init__(self, choices: Choices, *, opset: int, symbolic_batch: bool) -> None:
        self.choices = choices
        self.opset = opset
        self.symbolic_batch = symbolic_batch
        self.batch = SYMBOLIC_BATCH if symbolic_batch else choices.pick((1, 2))
        self.features: set[str] = set()
        self.random = np.random.default_rng(choices.integer(0, 2**16))
        self.unnamed_nodes = choices.chance(10)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._value_infos: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, Array] = {}
        self._weights: dict[tuple[str, tuple[int, ...]], Value] = {}
        self._integers: dict[tuple[int, ...], Value] = {}
        self._counter = 0
        self._domains: set[str] = set()
        self._functions: dict[str, onnx.FunctionProto] = {}

    def fresh(self, hint: str) -> str:
        self._counter += 1
        return f"{hint}_{self._counter}"

    def input(self, shape: Sequence[int], dtype: int = TensorProto.FLOAT) -> Value:
        """A graph input of shape [batch, *shape], float32 if not said otherwise."""
        value = Value(self.fresh("input"), (self.batch, *shape), dtype)
        self._inputs.append(self._describe(value))
        return value

    def node(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
    ) -> tuple[Value, ...]:
        """Append one node of the default domain and return its outputs."""
        self.features.add(operator)
        names = ["" if value is None else value.name for value in inputs]
        node = helper.make_node(operator, names, [self.fresh(operator.lower()) for _ in range(outputs)])
        self._finish_node(node, attributes or {})
        types = {v.name: helper.make_tensor_type_proto(v.dtype, v.shape) for v in inputs if v is not None}
        known = {name: numpy_helper.from_array(self._constants[name]) for name in names if name in self._constants}
        inferred = shape_inference.infer_node_outputs(
            defs.get_schema(operator, max(self.opset, SHAPED_FROM.get(operator, 0)), ""),
            node,
            types,
            known,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSIONS[self.opset],
        )
        values = []
        for name in node.output:
            tensor = inferred[name].tensor_type
            assert all(axis.HasField("dim_value") for axis in tensor.shape.dim), f"{operator} {name}: shape unknown"
            values.append(Value(name, tuple(axis.dim_value for axis in tensor.shape.dim), tensor.elem_type))
        return tuple(values)

    def foreign(
        self,
        domain: str,
        operator: str,
        inputs: Sequence[Value | None],
        shape: Sequence[int],
        *,
        declared: bool,
        dtype: int = TensorProto.FLOAT,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Value:
        """Append a node onnx has no schema for; ``declared`` writes its shape into the file."""
        (value,) = self.stated(operator, inputs, [(shape, dtype)], domain=domain, attributes=attributes)
        if declared:
            self._value_infos.append(self._describe(value))
        return value

    def stated(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        results: Sequence[tuple[Sequence[int], int] | None],
        *,
        domain: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> tuple[Value, ...]:
        """Append a node whose results' shapes and types the caller states; a result given as None is left out."""
        self.features.add(f"{domain}.{operator}" if domain else operator)
        self._domains |= {domain} - {""}
        names = ["" if result is None else self.fresh(operator.lower()) for result in results]
        node = helper.make_node(operator, ["" if v is None else v.name for v in inputs], names, domain=domain)
        self._finish_node(node, attributes or {})
        return tuple(
            Value(name, tuple(result[0]), result[1])
            for name, result in zip(names, results, strict=True)
            if result is not None
        )

    def function(self, text: str) -> None:
        """Add a model-local function, once for its name; ``{opset}`` stands for the version of the operator set."""
        function = onnx.parser.parse_function(text.replace("{opset}", str(self.opset)))
        self._functions[function.name] = function

    def one(
        self, operator: str, inputs: Sequence[Value | None], attributes: Mapping[str, Attribute] | None = None
    ) -> Value:
        """Append a node with a single output and return that output."""
        return self.node(operator, inputs, attributes)[0]

    def reshaped(self, x: Value, target: Value, shape: Sequence[int]) -> Value:
        """Reshape to a target that is computed while the model runs; the caller states the shape."""
        return self.stated("Reshape", [x, target], [(shape, x.dtype)])[0]

    def _finish_node(self, node: onnx.NodeProto, attributes: Mapping[str, Attribute]) -> None:
        if not self.unnamed_nodes:
            node.name = f"node_{node.output[0]}"
        if self.choices.chance(3):
            node.doc_string = "written by the generator"
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)

    # Constants

    def initializer(self, array: Array, hint: str) -> Value:
        name = self.fresh(hint)
        self._initializers.append(numpy_helper.from_array(array, name))
        self._constants[name] = array
        return Value(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))

    def constant_node(self, array: Array, hint: str) -> Value:
        """A Constant node; one-dimensional and scalar arrays take the short attribute forms now and then."""
        self.features.add("constant node")
        value = Value(self.fresh(hint), array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))
        attributes: dict[str, Attribute] = {"value": numpy_helper.from_array(array)}
        kind = {"f": "float", "i": "int"}.get(array.dtype.kind, "")
        if (
            self.opset >= 12
            and kind
            and array.dtype.itemsize == {"float": 4, "int": 8}[kind]
            and array.size
            and self.choices.chance(40)
        ):
            if array.ndim == 0:
                attributes = {f"value_{kind}": array.item()}
            elif array.ndim == 1:
                attributes = {f"value_{kind}s": array.tolist()}
        node = helper.make_node("Constant", [], [value.name])
        self._finish_node(node, attributes)
        self._constants[value.name] = array
        return value

    def integers(self, *numbers: int) -> Value:
        """A 1-D int64 constant: a shape, axes, pads. Equal ones are often shared, as exporters do."""
        if numbers in self._integers and self.choices.chance(70):
            self.features.add("shared shape constant")
            return self._integers[numbers]
        array = np.asarray(numbers, np.int64)
        value = self.constant_node(array, "const") if self.choices.chance(30) else self.initializer(array, "const")
        self._integers[numbers] = value
        return value

    def scalar(self, number: float) -> Value:
        array = np.asarray(number, np.float32)
        return self.constant_node(array, "const") if self.choices.chance(30) else self.initializer(array, "const")

    def parameter(self, array: Array, hint: str, *, share: bool = True) -> Value:
        """A weight: initializer, Constant node, behind Identity or Transpose, or one already there of equal kind."""
        key = (hint, array.shape)
        if share and key in self._weights and self.choices.chance(12):
            self.features.add("shared weight")
            return self._weights[key]
        form = self.choices.weighted(((78, "plain"), (8, "node"), (7, "identity"), (7, "transpose")))
        if form == "node":
            value = self.constant_node(array, hint)
        elif form == "identity":
            self.features.add("weight behind Identity")
            value = self.one("Identity", [self.initializer(array, hint)])
        elif form == "transpose" and array.ndim >= 2:
            self.features.add("weight behind Transpose")
            axes = list(range(array.ndim))
            axes = axes[::-1] if self.choices.chance(50) else [axes[1], axes[0], *axes[2:]]
            stored = np.ascontiguousarray(np.transpose(array, np.argsort(axes)))
            value = self.one("Transpose", [self.initializer(stored, hint)], {"perm": axes})
        else:
            value = self.initializer(array, hint)
        if share:
            self._weights[key] = value
        return value

    def weight(self, shape: Sequence[int], fan_in: int, hint: str = "weight") -> Value:
        """A random weight that keeps activations of order one."""
        spread = 1.2 / np.sqrt(max(fan_in, 1))
        return self.parameter(self.random.normal(0.0, spread, tuple(shape)).astype(np.float32), hint)

    def bias(self, shape: Sequence[int], hint: str = "bias") -> Value:
        """A bias of either sign that is nowhere near zero: a rule that loses it must show."""
        return self.parameter(self.away_from_zero(shape), hint)

    def away_from_zero(self, shape: Sequence[int]) -> Array:
        size = self.random.uniform(0.2, 0.8, tuple(shape))
        return np.asarray(size * self.random.choice([-1.0, 1.0], tuple(shape)), np.float32)

    def positive(self, shape: Sequence[int], hint: str) -> Value:
        return self.parameter(self.random.uniform(0.5, 1.5, tuple(shape)).astype(np.float32), hint)

    # The end

    def _describe(self, value: Value) -> onnx.ValueInfoProto:
        batch: int | str = "N" if self.symbolic_batch else value.shape[0]
        return helper.make_tensor_value_info(value.name, value.dtype, [batch, *value.shape[1:]])

    def finish(self, outputs: Sequence[Value]) -> onnx.ModelProto:
        """The model with these outputs; the features it shows stand in ``metadata_props``."""
        graph = helper.make_graph(
            self._nodes,
            "generated",
            list(self._inputs),
            [self._describe(value) for value in outputs],
            self._initializers,
            doc_string="a generated network",
            value_info=self._value_infos,
        )
        if self.choices.chance(12):
            self.features.add("initializers listed as inputs")
            for tensor in self._initializers:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        imports = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(name, 1) for name in sorted(self._domains)),
        ]
        model = helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=max(IR_VERSIONS[self.opset], 8 if self._functions else 0),
            producer_name="tests.graphs",
        )
        self.features.add("symbolic batch" if self.symbolic_batch else "fixed batch")
        model.functions.extend(self._functions.values())
        helper.set_model_props(model, {"author": "generator", "features": ",".join(sorted(self.features))})
        return model
