"""Reading and replacing constants: initializers and ``Constant`` nodes look the same from here."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.model import Model, clone

Array = NDArray[Any]

#: Types that networks compute in.
FLOATS = frozenset(onnx_ir.DataType[name] for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"))
_FREE_INITIALIZERS = 4  # the first IR version whose initializers need not be inputs


def constant(value: onnx_ir.Value) -> Array | None:
    """Return the constant behind ``value``, or None when it is computed or fed.

    Initializers count as constants also where the file lists them among the graph inputs. Of ``Constant`` nodes,
    the forms ``value``, ``value_float(s)``, ``value_int(s)`` and ``value_string(s)`` are read (``sparse_value`` has
    become ``value`` when the model was loaded). The array must not be written to: it may be the very memory of the
    model, mapped from the file, read-only and not aligned.
    """
    if value.is_initializer():
        tensor = value.const_value
        return None if tensor is None else tensor.numpy()
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for attribute in node.attributes.values():
        if attribute.is_ref():
            return None
        if attribute.name == "value":
            return attribute.as_tensor().numpy()
        if attribute.name == "value_float":
            return np.array(attribute.as_float(), dtype=np.float32)
        if attribute.name == "value_floats":
            return np.array(attribute.as_floats(), dtype=np.float32)
        if attribute.name == "value_int":
            return np.array(attribute.as_int(), dtype=np.int64)
        if attribute.name == "value_ints":
            return np.array(attribute.as_ints(), dtype=np.int64)
        if attribute.name == "value_string":
            return np.array(attribute.as_string(), dtype=np.object_)
        if attribute.name == "value_strings":
            return np.array(attribute.as_strings(), dtype=np.object_)
    return None


def constant_of_node(node: onnx.NodeProto) -> Array | None:
    """Return what a ``Constant`` node outside of a ``Model`` gives, as ``constant`` does; None for other nodes."""
    return constant(onnx_ir.serde.deserialize_node(node).outputs[0]) if node.op_type == "Constant" else None


def constants_by_name(model: Model) -> dict[str, onnx_ir.Value]:
    """Return every constant of the main graph: initializers and results of ``Constant`` nodes."""
    found = dict(model.ir.graph.initializers)
    for node in model.ir.graph:
        output = node.outputs[0] if node.outputs else None
        if node.op_type == "Constant" and output is not None and output.name:
            found[output.name] = output
    return found


def stored_bytes(model: Model) -> int:
    """Return how many bytes the constants of a model need: initializers and ``Constant`` nodes, at any depth."""
    functions = [graph for each in model.ir.functions.values() for graph in (each.graph, *each.subgraphs())]
    total = 0
    for graph in (*model.ir.graphs(), *functions):
        total += sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
        for node in graph:
            tensor = node.attributes.get("value") if node.op_type == "Constant" else None
            if tensor is not None and not tensor.is_ref() and tensor.type == onnx_ir.AttributeType.TENSOR:
                total += tensor.as_tensor().nbytes
    return total


def set_constants(model: Model, arrays: Mapping[str, Array]) -> None:
    """Replace constants of the main graph by name, as ``set_constant`` does.

    Raises:
        KeyError: there is no constant of a name.
    """
    values = constants_by_name(model)
    for name, array in arrays.items():
        set_constant(model, values[name], array)


def with_constants(model: Model, arrays: Mapping[str, Array]) -> Model:
    """Return a copy of the model with some constants replaced; the arrays are copied, the others shared.

    Raises:
        KeyError: there is no constant of a name.
    """
    result = clone(model)
    set_constants(result, {name: np.array(array) for name, array in arrays.items()})
    return result


def set_constant(model: Model, value: onnx_ir.Value, array: Array) -> None:
    """Replace the constant behind ``value`` by ``array``, of any shape and dtype; the name stays.

    Raises:
        ValueError: ``value`` is neither an initializer nor the output of a ``Constant`` node.
    """
    tensor = onnx_ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
    node = value.producer()
    if value.is_initializer():
        value.const_value = tensor
    elif node is not None and node.op_type == "Constant" and constant(value) is not None:
        for name in list(node.attributes):
            node.attributes.pop(name)
        node.attributes.add(onnx_ir.AttrTensor("value", tensor))
    else:
        raise ValueError(f"{value.name} of {model.ir.graph.name} is not a constant")
    value.shape = onnx_ir.Shape(array.shape)
    value.type = onnx_ir.TensorType(tensor.dtype)


def new_initializer(model: Model, name_hint: str, array: Array, *, taken: set[str]) -> onnx_ir.Value:
    """Add an initializer to the main graph under ``name_hint``, or ``name_hint_1``, ``_2``... where that is taken.

    Below IR version 4 every initializer is an input, and so is this one: a ``Constant`` node would not do, since below
    operator set 9 it gives floats alone.

    Args:
        taken: names that are in use (see ``value_names``); the new name is added to it.
    """
    name = free_name(name_hint, taken)
    tensor = onnx_ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = onnx_ir.Value(
        name=name, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph = model.ir.graph
    # Some files say an older version than they follow: their weights are free of the inputs.
    listed = model.ir.ir_version < _FREE_INITIALIZERS and all(
        known.is_graph_input() for known in graph.initializers.values()
    )
    graph.register_initializer(value)
    if listed:
        graph.inputs.append(value)
    return value


def remove_initializer(model: Model, value: onnx_ir.Value) -> None:
    """Take an initializer that nothing reads out of the main graph, and off its inputs where it is listed there."""
    model.ir.graph.initializers.pop(value.name or "")
    if value.is_graph_input():
        model.ir.graph.inputs.remove(value)


def free_name(name_hint: str, taken: set[str]) -> str:
    """Return ``name_hint``, or ``name_hint_1``, ``_2``... where that is taken, and add it to ``taken``."""
    name = name_hint
    if name in taken:
        # In steps that double, and then by halves: thousands of names with one hint would take a step for each pair.
        free = 1
        while f"{name_hint}_{free}" in taken:
            free *= 2
        used = free // 2
        while free - used > 1:
            middle = (free + used) // 2
            used, free = (middle, free) if f"{name_hint}_{middle}" in taken else (used, middle)
        name = f"{name_hint}_{free}"
    taken.add(name)
    return name


def value_names(model: Model) -> set[str]:
    """Return the names of all values, subgraphs included: a name given twice would shadow the outer one."""
    names: set[str] = set()
    for graph in model.ir.graphs():
        names.update(value.name or "" for value in graph.inputs)
        names.update(graph.initializers)
        for node in graph:
            names.update(value.name or "" for value in node.outputs)
    return names
