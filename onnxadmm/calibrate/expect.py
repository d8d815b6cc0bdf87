"""How long a calibration will take, and how much memory, from a few figures of the machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from onnxadmm.admm.problem import GateGroup
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.network import Network


@dataclass(frozen=True)
class Work:
    """What is expected: seconds, and megabytes beside the model itself."""

    seconds: float
    megabytes: float


def expected_work(
    network: Network, groups: Sequence[GateGroup], effort: Effort, *, samples: int, pass_seconds: float, shown: int
) -> Work:
    """Return what a calibration at some effort will take.

    Args:
        samples: how many there are.
        pass_seconds: time the model takes for all of them.
        shown: samples that a loss is measured with.
    """
    matrices = [(network.matrix(layer).shape, layer.blocks) for layer in network.layers]
    rows = samples * effort.rows
    narrow = [(shape, blocks) for shape, blocks in matrices if shape[1] <= WIDEST]
    moments = sum(2.0 * rows * blocks * shape[1] ** 2 for shape, blocks in narrow)
    inverses = sum(6.0 * blocks * shape[1] ** 3 for shape, blocks in narrow)
    fits = len(effort.ridges) + 1
    fitting = sum(4.0 * rows * blocks * shape[1] * shape[2] * (effort.rounds + 2) for shape, blocks in matrices)
    arithmetic = 2 * moments + (1 + fits / 2) * inverses + fitting
    passes = 3 + len(groups) * effort.looks * shown / max(1, samples)
    largest = max((24.0 * blocks * shape[1] ** 2 for shape, blocks in narrow), default=0.0)
    all_moments = sum(24.0 * blocks * shape[1] ** 2 for shape, blocks in narrow)
    activations = 2.0 * 4 * rows * max((shape[1] + shape[2] for shape, _ in matrices), default=0)
    return Work(
        seconds=passes * pass_seconds + arithmetic / _operations_per_second(),
        megabytes=(max(largest, min(all_moments, effort.memory / 2)) + min(activations, effort.memory / 2)) / 1e6,
    )


@cache
def _operations_per_second() -> float:
    """Of a product of matrices in single precision, as numpy makes it here."""
    matrix = np.ones((512, 512), np.float32)
    matrix @ matrix
    start = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    return 4 * 2 * 512**3 / (time.perf_counter() - start)
