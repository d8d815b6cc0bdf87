"""What gradients are written with."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import numpy as np
import onnx
from onnx import helper

from onnxadmm.operators.table import declare
from onnxadmm.train.lowering.writer import Place, Writer, unknown_shape
from onnxadmm.train.prepare.nodes import attributes
from onnxadmm.train.prepare.workspace import Array

#: One name per operand, None where nothing flows.
Made = Sequence[str | None]
AnyGradient = TypeVar("AnyGradient", bound="Callable[[Backward, onnx.NodeProto, Sequence[str]], Made]")


def differentiates(*operators: str, domain: str = "") -> Callable[[AnyGradient], AnyGradient]:
    """Register a function that writes the gradients of some operators in operators of ONNX.

    It receives a ``Backward``, the node, and the name of the gradient of each of its results, empty where none arrives;
    it returns the name of the gradient of each operand, of that operand's shape and type.
    """

    def register(gradient: AnyGradient) -> AnyGradient:
        declare(*operators, domain=domain, backward=gradient)
        return gradient

    return register


class Backward(Writer):
    """Collects nodes that compute the gradients of one node's operands.

    Args:
        wanted: operands whose gradient is read by something.
        single: whether what is written runs in sessions of one thread only.

    Attributes:
        shapes: of results of open nodes, which ONNX does not infer.
    """

    def __init__(self, space: Place, node: onnx.NodeProto, wanted: Collection[str], *, single: bool) -> None:
        super().__init__(space, node)
        self._node = node
        self._wanted = wanted
        self._single = single
        self.shapes: dict[str, tuple[int, ...]] = {}
        kind = space.element_type(node.output[0]) or onnx.TensorProto.FLOAT
        self._dtype = helper.tensor_dtype_to_np_dtype(kind)

    def wants(self, index: int) -> bool:
        """Whether the gradient of an operand is to be written."""
        return index < len(self._node.input) and self._node.input[index] in self._wanted

    def scalar(self, value: float) -> str:
        """A number of the type of the node's first result."""
        return self._space.constant(f"{self._hint}/constant", np.array(value, self._dtype))

    def kind(self, value: str) -> int:
        """``onnx.TensorProto`` type of a value of the graph."""
        return self._space.element_type(value) or onnx.TensorProto.FLOAT

    def value(self, name: str) -> Array | None:
        """Value of a constant that does not train; None for what is computed."""
        return self._space.constants.get(name)

    def known(self, value: str) -> tuple[int, ...]:
        """Shape of a value of the graph.

        Raises:
            NotTrainableError: it is not known.
        """
        shape = self.shape(value)
        if shape is None:
            raise unknown_shape(self._node, value)
        return shape

    def sizes(self, value: str) -> str:
        """The lengths of the axes of a value of the graph, int64."""
        shape = self.shape(value)
        return self.add("Shape", value) if shape is None else self.integers(*shape)

    def shaped_like(self, gradient: str, value: str) -> str:
        """Give a gradient the shape of a value of the graph that has as many elements."""
        return self.add("Reshape", gradient, self.sizes(value))

    def zeros_like(self, value: str, gradient: str) -> str:
        """Zeros of the shape of a value of the graph, see ``zeros``."""
        return self._zeros(self.sizes(value), gradient)

    def zeros(self, shape: Sequence[int], gradient: str) -> str:
        """Zeros of the type of a gradient, made anew in every step.

        A constant of that size would be kept beside them; so the number that is repeated comes from the gradient.
        """
        return self._zeros(self.integers(*shape), gradient)

    def _zeros(self, sizes: str, gradient: str) -> str:
        first = self.gather(self.add("Reshape", gradient, self.integers(-1)), [0], axis=0)
        zero = self.scalar(0.0)
        return self.add("Expand", self.add("Clip", first, zero, zero), sizes)

    def leave_open(self, kind: tuple[str, str], inputs: Sequence[str], like: Sequence[str | None]) -> list[str | None]:
        """Write a node of a reserved kind in place of gradients that ``write_open`` writes later.

        Args:
            kind: domain and operator; it has the attributes of the node.
            like: for each of its results a value of that shape, None where it is not wanted.

        Returns:
            The names of the results.
        """
        domain, operator = kind
        names = [None if value is None else self._space.fresh(f"{self._hint}/{operator}") for value in like]
        outputs = [name or "" for name in names]
        label = next(filter(None, outputs))
        self.nodes.append(helper.make_node(operator, inputs, outputs, label, domain=domain, **attributes(self._node)))
        self.shapes.update(
            (name, self.known(value)) for name, value in zip(names, like, strict=True) if name and value is not None
        )
        return names

    def index(self, value: int) -> str:
        """A whole number, int64 of rank 0."""
        return self.array(np.array(value, np.int64))

    def as_int64(self, value: str) -> str:
        kind = onnx.TensorProto.INT64
        return value if self.kind(value) == kind else self.add("Cast", value, to=kind)

    def accumulate(self, table: str, rows: str, values: str, *, width: int) -> str:
        """Add ``values`` [n, width] to the ``rows`` [n, 1] of a table [m, width], several to the same row as well."""
        if self._single and width > 1:
            return self.add("ScatterND", table, rows, values, reduction="add")
        places = rows if width == 1 else self.add("Expand", rows, self.integers(1, width))
        return self.add("ScatterElements", table, places, values, axis=0, reduction="add")

    def square(self, value: str) -> str:
        return self.add("Mul", value, value)

    def matched(self, gradient: str, result: str, operand: str) -> str:
        """The gradient of an operand that was broadcast: of the shape of the result, summed to that of the operand."""
        whole, own = self.shape(result), self.shape(operand)
        if whole is None or own is None:
            return self._matched_while_running(gradient, result, operand)
        return self.summed_to(gradient, whole, own)

    def summed_to(self, gradient: str, whole: tuple[int, ...], own: tuple[int, ...]) -> str:
        """A gradient of the shape ``whole``, summed to that of an operand that was broadcast to it."""
        if whole == own:
            return gradient
        extra = len(whole) - len(own)
        axes = [axis for axis, size in enumerate(whole) if axis < extra or (own[axis - extra] == 1 and size != 1)]
        value = self.total(gradient, whole, axes)
        return self.reshape(value, own) if extra else value

    def _matched_while_running(self, gradient: str, result: str, operand: str) -> str:
        """The same where lengths are not known before."""
        sizes, own = self.sizes(result), self.sizes(operand)
        missing = self.add("Sub", self.add("Shape", sizes), self.add("Shape", own))
        ones = self.add("ConstantOfShape", missing, value=helper.make_tensor("value", onnx.TensorProto.INT64, [1], [1]))
        filled = self.add("Concat", ones, own, axis=0)
        differ = self.add("Not", self.add("Equal", filled, sizes))
        axes = self.add("Reshape", self.add("NonZero", differ), self.integers(-1))
        summed = self.add("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        return self.add("Reshape", summed, own)
