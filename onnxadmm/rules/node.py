"""What can be read of a node, by label functions and rewrite functions alike: operands, results, attributes, values."""

import numpy as np
import onnx_ir

from onnxadmm.graph.shapes import Shapes


class LockNodeError(Exception):
    """Raised by a label function that does not cover a case: the node locks what it touches.

    The message goes on where the name of the node ends, as in ``"Einsum (n1) has an equation that takes diagonals"``.
    """


class NodeView:
    """One node of the main graph, to be read.

    A node has *operands* and *results*, counted from 0; inputs and outputs are those of the whole model. Optional
    operands and results keep their number where those before them are absent.

    Shapes are those of one sample of the free input dimensions, before anything is removed: see ``Operand``.
    """

    def __init__(self, node: onnx_ir.Node, shapes: Shapes) -> None:
        self._node = node
        self._shapes = shapes

    @property
    def operator(self) -> str:
        """Name of the operator, such as ``"Conv"``: one function may be the rule of several."""
        return self._node.op_type

    @property
    def name(self) -> str:
        """Name of the node; the name of its first result where it has none of its own."""
        return self._node.name or next((output.name for output in self._node.outputs if output.name), "unnamed")

    @property
    def where(self) -> str:
        """Operator and name, as messages name a node: ``"Conv (conv1)"``."""
        return f"{self.operator} ({self.name})"

    @property
    def opset_version(self) -> int:
        """Version of the operator set of the default domain that the model imports."""
        graph = self._node.graph
        imports = graph.opset_imports if isinstance(graph, onnx_ir.Graph) else {}
        return imports.get("", 1)

    # -- operands and results ------------------------------------------------------------------------

    @property
    def operand_count(self) -> int:
        """Number of operands, absent ones in the middle included."""
        return len(self._node.inputs)

    @property
    def result_count(self) -> int:
        """Number of results, absent ones in the middle included."""
        return len(self._node.outputs)

    def has_operand(self, index: int) -> bool:
        """Tell whether the node has this operand."""
        return index < len(self._node.inputs) and self._node.inputs[index] is not None

    def has_result(self, index: int) -> bool:
        """Tell whether the node has this result."""
        return bool(self._result_name(index))

    def value(self, index: int) -> np.ndarray | None:
        """Return the value of an operand that is known before running, of its own dtype and shape.

        None when the operand is absent, is computed while running, depends on a free input dimension, or is large:
        more than 4096 integers or booleans, or more than 64 other numbers.
        """
        name = self._operand_name(index)
        return None if name is None else self._shapes.value(name)

    def operand_integers(self, index: int) -> list[int] | None:
        """Return the integers of an operand in row-major order; None where ``value`` gives None."""
        value = self.value(index)
        return None if value is None else [int(number) for number in value.reshape(-1)]

    def partial_value(self, index: int) -> tuple[int | None, ...] | None:
        """Return the elements of a one-dimensional operand of integers, such as the target of a reshape.

        An element is None where it depends on a free input dimension, such as the batch size. All is None when the
        operand is absent or nothing is known of it.
        """
        name = self._operand_name(index)
        return None if name is None else self._shapes.partial(name)

    def partial_result_value(self, index: int = 0) -> tuple[int | None, ...] | None:
        """Return the elements of a one-dimensional result of integers, as ``partial_value`` does of an operand."""
        name = self._result_name(index)
        return None if name is None else self._shapes.partial(name)

    # -- attributes ----------------------------------------------------------------------------------

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute.

        Raises:
            LockNodeError: it is of another type.
        """
        attribute = self._attribute(name, onnx_ir.AttributeType.INT)
        return default if attribute is None else attribute.as_int()

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that lists integers, or None when it is absent.

        Raises:
            LockNodeError: it is of another type.
        """
        attribute = self._attribute(name, onnx_ir.AttributeType.INTS)
        return None if attribute is None else list(attribute.as_ints())

    def number(self, name: str, default: float) -> float:
        """Return a floating-point attribute.

        Raises:
            LockNodeError: it is of another type.
        """
        attribute = self._attribute(name, onnx_ir.AttributeType.FLOAT)
        return default if attribute is None else attribute.as_float()

    def numbers(self, name: str) -> list[float] | None:
        """Return an attribute that lists floating-point numbers, or None when it is absent.

        Raises:
            LockNodeError: it is of another type.
        """
        attribute = self._attribute(name, onnx_ir.AttributeType.FLOATS)
        return None if attribute is None else list(attribute.as_floats())

    def text(self, name: str, default: str) -> str:
        """Return a text attribute.

        Raises:
            LockNodeError: it is of another type.
        """
        attribute = self._attribute(name, onnx_ir.AttributeType.STRING)
        return default if attribute is None else attribute.as_string()

    def axis_attribute(self, name: str, default: int, rank: int) -> int:
        """Return an attribute that names one of ``rank`` axes, counted from the front: -1 becomes ``rank - 1``.

        The axis behind the last one is allowed: Flatten and others name it.

        Raises:
            LockNodeError: there is no such axis.
        """
        axis = self.integer(name, default)
        if not -rank <= axis <= rank:
            raise LockNodeError(f"names axis {axis} of {rank}")
        return axis + rank if axis < 0 else axis

    # -- for the classes that inherit ----------------------------------------------------------------

    def _attribute(self, name: str, kind: onnx_ir.AttributeType) -> onnx_ir.Attr | None:
        attribute = self._node.attributes.get(name)
        if attribute is not None and (attribute.is_ref() or attribute.type != kind or attribute.value is None):
            raise LockNodeError(f"has an attribute {name} that is not of type {kind.name}")
        return attribute

    def _operand_name(self, index: int) -> str | None:
        value = self._node.inputs[index] if index < len(self._node.inputs) else None
        return None if value is None else value.name

    def _result_name(self, index: int) -> str | None:
        return self._node.outputs[index].name if index < len(self._node.outputs) else None

    def _elements_read_by(self, user: onnx_ir.Node, place: int, length: int) -> set[int]:
        """Return which elements of a vector of sizes a node reads as operand ``place``; all when that is not plain."""
        everything = set(range(length))
        if place != 0 or user.domain not in ("", "ai.onnx") or user.op_type not in ("Gather", "Slice"):
            return everything
        rest = [self._shapes.value(value.name or "") for value in user.inputs[1:] if value is not None]
        numbers = [[int(number) for number in array.reshape(-1)] for array in rest if array is not None]
        if len(numbers) != len(rest):
            return everything
        if user.op_type == "Gather":
            return {index % length for index in numbers[0]}
        if not numbers:
            starts, ends = user.attributes.get_ints("starts", []), user.attributes.get_ints("ends", [])
            return set(range(length)[slice(starts[0], ends[0])]) if starts and ends else everything
        step = numbers[3][0] if len(numbers) > 3 else 1
        return set(range(length)[slice(numbers[0][0], numbers[1][0], step)])
