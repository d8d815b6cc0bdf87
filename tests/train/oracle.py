"""Comparing the engine's gradients with central differences of the user's float64 graph."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import Loss
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, DoubleGraph

LossOracle = Callable[[NDArray[np.float64]], float]


def gradient_error(
    model: onnx.ModelProto,
    *,
    loss: Loss,
    inputs: Mapping[str, Array],
    oracle: LossOracle,
    labels: Array | None = None,
    teacher: Array | None = None,
    weights: NDArray[np.float32] | None = None,
    entries: int = 12,
    planted: float = 1.0,
) -> float:
    """Largest difference between gradient and finite difference, relative to the largest finite difference.

    Args:
        oracle: the loss of float64 logits, written independently of the package.
        planted: factor on the engine's gradients; anything but 1 must be noticed.
    """
    count = len(next(iter(inputs.values())))
    graph = DoubleGraph(model)
    with OrtTrainer(model, loss=loss, batch_size=count) as trainer:
        value = trainer.backward(Batch(inputs, labels, teacher, count, weights=weights))
        expected = oracle(graph.run(inputs))
        assert abs(value - expected) <= 2e-5 * max(1.0, abs(expected)), (value, expected)
        generator = np.random.default_rng(7)
        worst, largest = 0.0, 1e-3
        for name, gradient in trainer.gradients.items():
            weight = graph.weights[name]
            for flat in generator.permutation(weight.size)[:entries]:
                index = np.unravel_index(int(flat), weight.shape)
                old, step = float(weight[index]), 1e-5
                weight[index] = old + step
                above = oracle(graph.run(inputs))
                weight[index] = old - step
                below = oracle(graph.run(inputs))
                weight[index] = old
                slope = (above - below) / (2 * step)
                largest = max(largest, abs(slope))
                worst = max(worst, abs(slope - planted * float(gradient[index])))
    return worst / largest


def mean_square_to(target: Array) -> LossOracle:
    """The oracle for ``Task.MSE`` on labels."""
    return lambda logits: float(((logits - target.astype(np.float64)) ** 2).mean())
