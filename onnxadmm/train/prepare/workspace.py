"""A training copy of a graph while it is being rewritten: protobuf nodes with maps kept beside them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.constants import free_name
from onnxadmm.graph.fold import evaluate
from onnxadmm.graph.probing import Probe
from onnxadmm.operators.call import result_types
from onnxadmm.operators.table import find
from onnxadmm.train.prepare.nodes import attribute, import_domain, label, opset_of, reads

Array = NDArray[Any]


class Workspace:
    """The training copy of a model.

    Attributes:
        model: the protobuf being rewritten.
        constants: every initializer by name, and nothing else that is known.
        protected: constants that must stay as they are, because they will be trained.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.protected: frozenset[str] = frozenset()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, int] = {}
        self._observed: dict[str, onnx.TypeProto] = {}
        self._observed_at: dict[str, list[tuple[int, ...] | None]] = {}
        self._names = self._all_names()
        del model.graph.initializer[:]

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    @property
    def opset(self) -> int:
        return opset_of(self.model)

    def _all_names(self) -> set[str]:
        graph = self.model.graph
        names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
        for node in graph.node:
            names.update((node.name, *node.input, *node.output))
        return names

    def fresh(self, hint: str) -> str:
        """A name nothing in the graph has yet."""
        return free_name(hint, self._names)

    def constant(self, hint: str, array: Array) -> str:
        """Add a constant that is not trained, and return its name."""
        name = self.fresh(hint)
        self.constants[name] = array
        return name

    def node(self, operator: str, inputs: Sequence[str], hint: str, **attributes: Any) -> onnx.NodeProto:
        """Make (not add) a node of one output with a fresh name."""
        output = self.fresh(hint)
        domain = attributes.get("domain", "")
        if domain:
            import_domain(self.model, domain)
        return helper.make_node(operator, inputs, [output], name=output, **attributes)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value after the last ``infer``, None when unknown."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        return self._shapes.get(name)

    def element_type(self, name: str) -> int | None:
        """``onnx.TensorProto`` type of a value after the last ``infer``."""
        if name in self.constants:
            return helper.np_dtype_to_tensor_dtype(self.constants[name].dtype)
        return self._types.get(name)

    def producers(self) -> dict[str, onnx.NodeProto]:
        return {output: node for node in self.graph.node for output in node.output if output}

    def uses(self) -> Counter[str]:
        """How often each value is read, by nodes (bodies of control flow included) and as a graph output."""
        count: Counter[str] = Counter(output.name for output in self.graph.output)
        for node in self.graph.node:
            count.update(reads(node))
        return count

    def rename_uses(self, renamed: dict[str, str]) -> None:
        """Let every reader of a key read its value instead."""
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name in renamed:
                    node.input[index] = renamed[name]

    def replace_nodes(self, rewrite: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto] | None]) -> int:
        """Replace each node by what ``rewrite`` gives for it; None keeps the node. Returns how many were replaced."""
        nodes: list[onnx.NodeProto] = []
        count = 0
        for node in list(self.graph.node):
            made = rewrite(node)
            if made is None:
                nodes.append(node)
            else:
                nodes.extend(made)
                count += 1
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        return count

    def drop_dead(self) -> None:
        """Remove nodes and constants nothing reads."""
        while True:
            uses = self.uses()
            dead = [node for node in self.graph.node if not any(uses[name] for name in node.output)]
            if not dead:
                break
            for node in dead:
                self.graph.node.remove(node)
        self.constants = {name: array for name, array in self.constants.items() if uses[name]}

    def as_model(self, *, inputs: Sequence[str] = ()) -> onnx.ModelProto:
        """The whole as a model, constants as initializers except ``inputs``, which become graph inputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {value.name for value in (*model.graph.input, *model.graph.output)}
        for name, shape in self._shapes.items():
            if name not in known and name not in self.constants:
                model.graph.value_info.append(helper.make_tensor_value_info(name, self._types[name], shape))
        for name, array in self.constants.items():
            if name in inputs:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
            else:
                model.graph.initializer.append(numpy_helper.from_array(array, name))
        return model

    def infer(self) -> None:
        """Infer all shapes anew; those behind custom operators, whose library is in use, by running the graph."""
        self._infer()
        hidden = {
            name: [self.shape(read) for read in node.input]
            for node in self.graph.node
            if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)
            for name in node.output
            if name and (name in self._observed or name not in self._shapes)
        }
        if hidden == self._observed_at:
            return
        inputs = {value.name: (value.type, value.type) for value in self.graph.input}
        seen = Probe(self.as_model()).observe(hidden, inputs) or {}
        self._observed = {name: given for name, (given, _) in seen.items() if given is not None}
        self._infer()
        self._observed_at = {
            name: [self.shape(read) for read in node.input]
            for node in self.graph.node
            for name in node.output
            if name in hidden
        }

    def _infer(self) -> None:
        """Infer all shapes. Large constants take part by shape only."""
        del self.graph.value_info[:]
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for name, array in self.constants.items():
            if array.size <= 4096:
                model.graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        for name, given in self._observed.items():
            model.graph.value_info.append(onnx.ValueInfoProto(name=name, type=given))
        try:
            inferred = _infer_types(model)
        except onnx.shape_inference.InferenceError as error:
            raise NotTrainableError(
                "training copy",
                expected="shapes that fit each other at the training batch size",
                found=" ".join(str(error).split())[:300],
                way_out="export the model with a symbolic batch dimension",
            ) from error
        self._shapes, self._types = {}, {}
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            tensor = value.type.tensor_type
            self._types[value.name] = tensor.elem_type
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                self._shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)

    def fold(self) -> None:
        """Compute everything that depends on shapes and constants only, ``protected`` constants excepted."""
        while True:
            self.infer()
            if not self.replace_nodes(self._fold_node):
                return

    def _fold_node(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape" and (shape := self.shape(node.input[0])) is not None:
            first, last = attribute(node, "start", 0), attribute(node, "end", None)
            self.constants[node.output[0]] = np.array(shape[first:last], np.int64)
            return []
        if node.op_type == "Size" and (shape := self.shape(node.input[0])) is not None:
            self.constants[node.output[0]] = np.array(int(np.prod(shape)), np.int64)
            return []
        names = [name for name in node.input if name]
        # Only what shapes and constants are made of: a layer's arithmetic is never replaced.
        if not find("", node.op_type).folds or not all(n in self.constants and n not in self.protected for n in names):
            return None
        try:
            results = evaluate(node, [self.constants[name] if name else None for name in node.input], self.opset)
        except (ValueError, IndexError) as error:
            raise NotTrainableError(
                label(node),
                expected="constants that fit each other at the training batch size",
                found=" ".join(str(error).split())[:200],
                way_out="export the model with a symbolic batch dimension, or use its fixed batch size",
            ) from error
        self.constants.update(zip(filter(None, node.output), results, strict=True))
        return []


def _infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer shapes, changing the model; behind operators that ONNX does not know, those of the table of operators."""
    for node in model.graph.node:
        # The first result has the shape of the first operand: no need to infer everything once more behind each.
        if node.domain == "com.microsoft" and find(node.domain, node.op_type).elementwise:
            node.CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]]))
    foreign = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    constants = {
        tensor.name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    }
    while True:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
        types = constants | {value.name: value.type for value in values if value.type.tensor_type.HasField("shape")}
        found: dict[str, onnx.TypeProto] = {}
        for node in foreign:
            shape = find(node.domain, node.op_type).shape
            if shape is not None and any(name and name not in types for name in node.output):
                found |= result_types(shape, node, types)
        found = {name: kind for name, kind in found.items() if name not in types}
        if not found:
            return inferred
        for value in model.graph.output:
            if value.name in found:
                value.type.CopyFrom(found.pop(value.name))
        model.graph.value_info.extend(onnx.helper.make_value_info(name, kind) for name, kind in found.items())
