"""What lowerings write with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.workspace import Array, Workspace, label

Nodes = list[onnx.NodeProto]
Lowering = Callable[[Workspace, onnx.NodeProto], Nodes]


class Writer:
    """Collects nodes that compute one output."""

    def __init__(self, space: Workspace, node: onnx.NodeProto) -> None:
        self._space = space
        self._hint = node.output[0]
        self.nodes: Nodes = []

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
