"""What a shape function sees: one node, with the types and lengths of its operands and its attributes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxadmm.operators.nodes import attributes

#: A result: element type (``onnx.TensorProto.FLOAT``, ...; 0 where it is not known) and lengths of its axes.
Result = tuple[int, tuple[int, ...]]
ShapeFunction = Callable[["Call"], Sequence[Result]]


class Call:
    """One node, as its shape function sees it.

    Attributes:
        node: the node itself.
        attributes: its attributes' values by name.
    """

    def __init__(self, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> None:
        self.node = node
        self.attributes: Mapping[str, Any] = attributes(node)
        self._given = [types.get(name) if name else None for name in node.input]

    @property
    def count(self) -> int:
        """Number of operands, absent ones in the middle included."""
        return len(self._given)

    def dtype(self, index: int) -> int:
        """Return the element type of an operand, 0 when it is absent or not known."""
        given = self._given[index] if index < len(self._given) else None
        return 0 if given is None else int(given.tensor_type.elem_type)

    def lengths(self, index: int) -> tuple[int, ...]:
        """Return the lengths of an operand's axes.

        Raises:
            LookupError: it is absent, or a length is not known.
        """
        given = self._given[index] if index < len(self._given) else None
        if given is None or not given.tensor_type.HasField("shape"):
            raise LookupError(f"the shape of operand {index} is not known")
        dims = given.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise LookupError(f"a length of operand {index} is not known")
        return tuple(int(dim.dim_value) for dim in dims)


def shape_of(index: int = 0, *, dtype: int | None = None) -> ShapeFunction:
    """The shape of one operand, and its type if no other is given."""
    return lambda call: [(call.dtype(index) if dtype is None else dtype, call.lengths(index))]


def broadcast_of(*operands: int) -> ShapeFunction:
    """The shape of some operands after broadcasting (of all of them where none is named), and the first one's type."""

    def shape(call: Call) -> Sequence[Result]:
        chosen = operands or tuple(index for index in range(call.count) if call.dtype(index))
        return [(call.dtype(chosen[0]), np.broadcast_shapes(*(call.lengths(index) for index in chosen)))]

    return shape


def result_types(
    shape: ShapeFunction, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]
) -> dict[str, onnx.TypeProto]:
    """Return the types of a node's results by name; empty where the operands are not known well enough."""
    try:
        results = shape(Call(node, types))
    except (LookupError, ValueError, ZeroDivisionError):
        return {}
    return {
        name: helper.make_tensor_type_proto(dtype, lengths)
        for name, (dtype, lengths) in zip(node.output, results, strict=False)
        if name and dtype
    }
