"""What lowerings write with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import declare
from onnxadmm.train.prepare.nodes import label
from onnxadmm.train.prepare.stops import stop_node
from onnxadmm.train.prepare.workspace import Array, Workspace

Nodes = list[onnx.NodeProto]
#: Gives nodes whose last one puts out the original's first output; the node itself among them when it stays. Operators
#: that ONNX does not know give None as long as a shape is unknown.
Lowering = Callable[[Workspace, onnx.NodeProto], Nodes | None]
AnyLowering = TypeVar("AnyLowering", bound=Lowering)


def lowers(*operators: str, domain: str = "") -> Callable[[AnyLowering], AnyLowering]:
    """Register a function that writes nodes of some operators in operators that have a gradient.

    Trainable weights keep their names: what is derived from them is computed inside the graph, so gradients arrive at
    the user's own initializers.
    """

    def register(lowering: AnyLowering) -> AnyLowering:
        declare(*operators, domain=domain, lowering=lowering)
        return lowering

    return register


class Place(Protocol):
    """What a writer needs of the graph it writes into, see ``Workspace``."""

    @property
    def constants(self) -> Mapping[str, Array]: ...
    def shape(self, name: str) -> tuple[int, ...] | None: ...
    def element_type(self, name: str) -> int | None: ...
    def fresh(self, hint: str) -> str: ...
    def constant(self, hint: str, array: Array) -> str: ...
    def node(self, operator: str, inputs: Sequence[str], hint: str, **attributes: Any) -> onnx.NodeProto: ...


class Writer:
    """Collects nodes that compute one output."""

    def __init__(self, space: Place, node: onnx.NodeProto) -> None:
        self._space = space
        self._hint = node.output[0]
        self.nodes: Nodes = []

    def shape(self, value: str) -> tuple[int, ...] | None:
        """Shape of a value of the graph, None when it is not known; what is being written has none yet."""
        return self._space.shape(value)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        node = self._space.node(operator, inputs, f"{self._hint}/{operator}", **attributes)
        self.nodes.append(node)
        return str(node.output[0])

    def split(self, value: str, *, axis: int, sizes: list[int]) -> list[str]:
        """Cut a value along an axis; the names of the pieces."""
        node = self._space.node("Split", [value, self.integers(*sizes)], f"{self._hint}/piece", axis=axis)
        node.output.extend(self._space.fresh(f"{self._hint}/piece") for _ in sizes[1:])
        self.nodes.append(node)
        return list(node.output)

    def stop(self, value: str) -> str:
        """The same value, through which no gradient flows."""
        node = stop_node(value, self._space.fresh(f"{self._hint}/stopped"))
        self.nodes.append(node)
        return str(node.output[0])

    def with_slope(self, value: str, stopped: str, result: str, slope: str) -> str:
        """``result``, whose derivative by ``value`` is ``slope``; both computed from ``stopped``, the value's stop."""
        return self.add("Add", result, self.add("Mul", self.add("Sub", value, stopped), slope))

    def scale(self, value: str, factor: float) -> str:
        return value if factor == 1.0 else self.add("Mul", value, self.scalar(factor))

    def sum(self, value: str, axes: Sequence[int], *, keep: bool = True) -> str:
        return self.add("ReduceSum", value, self.integers(*axes), keepdims=int(keep))

    def total(self, value: str, shape: Sequence[int], axes: Sequence[int]) -> str:
        """The sum of a value of some shape over some axes, which stay with length 1.

        One run of neighbouring axes at a time, the last one first: that is what kernels are quick at.
        """
        shape, rest = list(shape), sorted(axis for axis in axes if shape[axis] != 1)
        while rest:
            run = [rest.pop()]
            while rest and all(shape[between] == 1 for between in range(rest[-1] + 1, run[0])):
                run.insert(0, rest.pop())
            value = self.sum(value, run)
        return value

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", value, self.integers(*shape))

    def gather(self, value: str, places: Sequence[int], *, axis: int) -> str:
        return self.add("Gather", value, self.array(np.array(places, np.int64)), axis=axis)

    def along(self, value: str, matrix: Array, *, axis: int, rank: int) -> str:
        """Multiply an axis of n entries by a constant ``matrix`` [m, n]: it has m entries then."""
        if axis == rank - 1:
            return self.add("MatMul", value, self.array(np.ascontiguousarray(matrix.T)))
        order = [*(place for place in range(rank) if place != axis), axis]
        last = self.add("Transpose", value, perm=order)
        product = self.add("MatMul", last, self.array(np.ascontiguousarray(matrix.T)))
        return self.add("Transpose", product, perm=[order.index(place) for place in range(rank)])

    def set_output(self, value: str, output: str) -> None:
        """Let ``value`` be an output of the original node."""
        self.nodes.append(self._space.node("Identity", [value], output))
        self.nodes[-1].output[0] = output

    def scalar(self, value: float) -> str:
        return self._space.constant(f"{self._hint}/constant", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self._space.constant(f"{self._hint}/shape", np.array(values, np.int64))

    def array(self, array: Array) -> str:
        return self._space.constant(f"{self._hint}/constant", array)

    def finish(self, value: str) -> Nodes:
        """Give ``value``, the last node's output, the original output's name."""
        last = self.nodes[-1]
        assert last.output[0] == value
        last.output[0] = self._hint
        return self.nodes


def need_shape(space: Workspace, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    shape = space.shape(name)
    if shape is None:
        raise unknown_shape(node, name)
    return shape


def unknown_shape(node: onnx.NodeProto, name: str) -> NotTrainableError:
    return NotTrainableError(
        label(node),
        expected="known shapes at a fixed batch size",
        found=f"{name} without one",
        way_out="simplify the model with onnxsim first",
    )


def refusal(node: onnx.NodeProto, *, expected: str, found: str, way_out: str) -> NotTrainableError:
    """An operator's form that has no lowering."""
    return NotTrainableError(label(node), expected=expected, found=found, way_out=way_out)


def need_constant(space: Workspace, node: onnx.NodeProto, index: int) -> Array | None:
    """Value of an optional input that must be known; None when it is not there."""
    if index >= len(node.input) or not node.input[index]:
        return None
    value = space.constants.get(node.input[index])
    if value is None:
        raise refusal(
            node,
            expected=f"a constant as input {index}",
            found=f"{node.input[index]}, which is computed",
            way_out="simplify the model with onnxsim first",
        )
    return value
