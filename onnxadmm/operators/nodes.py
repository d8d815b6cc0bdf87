"""Single protobuf nodes: what their attributes say, and a model of one alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, text decoded, or ``default``."""
    return next((_value(item) for item in node.attribute if item.name == name), default)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the values of all attributes by name, as ``attribute`` does."""
    return {item.name: _value(item) for item in node.attribute}


def model_of_node(node: onnx.NodeProto, *, opset: int, constants: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """Return a model of one node of the default domain; its results are the outputs that have a name.

    Args:
        constants: values of operands; the other operands are inputs of no stated type.
    """
    known = {} if constants is None else constants
    graph = helper.make_graph(
        [node],
        "one_node",
        [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name and name not in known],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _value(item: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(item)
    return value.decode() if isinstance(value, bytes) else value
