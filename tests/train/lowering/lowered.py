"""A network with one piece to be lowered in its middle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxadmm.train.losses import Loss, Task
from tests.train.graphs import Array, model_of, random
from tests.train.oracle import gradient_error, mean_square_to

MSE = Loss(Task.MSE)


def around(
    nodes: Sequence[onnx.NodeProto], *, more: dict[str, Array] | None = None, opset: int = 17
) -> onnx.ModelProto:
    """Conv from ``x`` to ``h`` [N, 4, 6, 6], the nodes from ``h`` to ``y``, then flattening and a linear layer."""
    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1], name="conv"),
            *nodes,
            helper.make_node("Flatten", ["y"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "v"], ["out"], name="linear"),
        ],
        inputs={"x": ["N", 2, 6, 6]},
        outputs=["out"],
        weights={"w": random([4, 2, 3, 3], seed=1), "b": random([4], seed=2), **(more or {})},
        opset=opset,
    )


def error_of(model: onnx.ModelProto, *, width: int, entries: int = 12, planted: float = 1.0) -> float:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.initializer.append(onnx.numpy_helper.from_array(random([width, 3], seed=3, scale=0.3), "v"))
    target = random([3, 3], seed=9)
    return gradient_error(
        whole,
        loss=MSE,
        inputs={"x": random([3, 2, 6, 6], seed=8)},
        labels=target,
        oracle=mean_square_to(target),
        entries=entries,
        planted=planted,
    )


def one(operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> onnx.NodeProto:
    names = ["y", *(f"y{index}" for index in range(1, outputs))]
    return helper.make_node(operator, ["h", *inputs], names, name="node", **attributes)


def numbers(*values: float) -> Array:
    return np.array(values, np.float32)


def finished(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    model.graph.initializer.append(onnx.numpy_helper.from_array(random([width, 3], seed=3, scale=0.3), "v"))
    return model
