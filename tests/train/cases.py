"""One operator between a linear layer and the loss: the same values as without training, and the right gradient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import EngineChoice
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, DoubleGraph, model_of, random

MSE = Loss(Task.MSE)
BATCH = 3


@dataclass(frozen=True)
class Case:
    """Nodes from ``h`` [BATCH, *shape] to ``y``, batch first.

    Attributes:
        more: constants they read.
        exact: whether ONNX's reference implementation computes the nodes rightly in float64; if not, the gradient is
            compared with differences of the float32 session's loss.
        spread: size of the values in ``h``.
        microsoft, learning: whether nodes are of the runtime's own domain, or of ai.onnx.ml.
    """

    nodes: Sequence[onnx.NodeProto]
    shape: tuple[int, ...]
    more: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 17
    exact: bool = True
    spread: float = 1.0
    microsoft: bool = False
    learning: bool = False

    def model(self) -> onnx.ModelProto:
        size = int(np.prod(self.shape))
        model = model_of(
            [
                helper.make_node("MatMul", ["x", "w"], ["flat"], name="linear"),
                helper.make_node("Reshape", ["flat", "shape"], ["h"], name="shaped"),
                *self.nodes,
            ],
            inputs={"x": ["N", 4]},
            outputs=["y"],
            weights={
                "w": random([4, size], seed=1, scale=0.5 * self.spread),
                "shape": np.array([-1, *self.shape], np.int64),
                **self.more,
            },
            opset=self.opset,
            ir_version=10,
            microsoft=self.microsoft,
        )
        if self.learning:
            model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        return model


def op(operator: str, *inputs: str, outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["h", *inputs], list(outputs), name="node", **attributes)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def errors_of(
    case: Case, *, planted: float = 1.0, freeze: bool = False, engine: EngineChoice = "auto"
) -> tuple[float, float]:
    """Largest difference of values, and of directional derivatives, both relative."""
    model = case.model()
    x = {"x": random([BATCH, 4], seed=8)}
    plain = Predictor(model, task=Task.MSE).logits(dict(x)).astype(np.float64)
    target = plain.astype(np.float32) + random(plain.shape, seed=9)
    with OrtTrainer(model, loss=MSE, batch_size=BATCH, freeze_untrainable=freeze, engine=engine) as trainer:
        trainer.backward(Batch(x, target, None, BATCH))
        values = trainer.logits.copy()
        gradients = {name: array.astype(np.float64) for name, array in trainer.gradients.items()}
    difference = float(np.abs(values - plain).max() / max(1.0, np.abs(plain).max()))
    loss = _double_loss(model, x, target) if case.exact else _float_loss(model, x, target)
    step = 1e-6 if case.exact else 2e-3
    generator = np.random.default_rng(3)
    worst = 0.0
    for name, gradient in gradients.items():
        for along in (gradient, *generator.standard_normal((2, *gradient.shape))):
            direction = along / (np.linalg.norm(along) or 1.0)
            slope = (loss(name, step * direction) - loss(name, -step * direction)) / (2 * step)
            size = max(float(np.linalg.norm(gradient)), 1e-3)
            worst = max(worst, abs(slope - planted * float((gradient * direction).sum())) / size)
    return difference, worst


def _double_loss(model: onnx.ModelProto, x: Mapping[str, Array], target: Array) -> Any:
    graph = DoubleGraph(model)

    def loss(name: str, step: NDArray[np.float64]) -> float:
        graph.weights[name] = graph.weights[name] + step
        result = float(((graph.run(x) - target) ** 2).mean())
        graph.weights[name] = graph.weights[name] - step
        return result

    return loss


def _float_loss(model: onnx.ModelProto, x: Mapping[str, Array], target: Array) -> Any:
    tensors = {tensor.name: index for index, tensor in enumerate(model.graph.initializer)}

    def loss(name: str, step: NDArray[np.float64]) -> float:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        tensor = copy.graph.initializer[tensors[name]]
        moved = onnx.numpy_helper.to_array(tensor) + step.astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(moved, name))
        logits = Predictor(copy, task=Task.MSE).logits(dict(x)).astype(np.float64)
        return float(((logits - target) ** 2).mean())

    return loss


def check(case: Case) -> None:
    difference, error = errors_of(case)
    assert difference < 2e-5, f"values differ by {difference}"
    assert error < (5e-5 if case.exact else 2e-3), f"gradients differ by {error}"
