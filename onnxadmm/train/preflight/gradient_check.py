"""Comparing the engine's gradients with differences of the user's own graph.

The loss of the original, run by a plain session and taken in float64, is moved along directions d of the weights:
(L(w + h d) - L(w - h d)) / 2h must be g . d. Differences of float32 runs are noisy where h is small and bent where it
is large, so several h are tried; a gradient is called wrong only when none of them agrees with it and two neighbours
agree with each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Array = NDArray[Any]

#: Relative changes of the weights, tried in this order until one agrees.
STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 3e-2)
TOLERANCE = 0.05
#: How far two neighbouring differences may be apart to count as one slope.
AGREEMENT = 0.02


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        weight: name of the weight, or ``"all weights"``.
        operator: who reads it.
        gradient: slope the engine's gradient promises along the direction.
        difference: slope that was measured, the closest one.
        verdict: ``"right"``, ``"wrong"``, or ``"uncertain"`` where the loss is too bent or too flat to tell.
    """

    weight: str
    operator: str
    gradient: float
    difference: float
    verdict: str


def choose(operators: Mapping[str, str], count: int) -> list[str]:
    """Up to ``count`` weights, one of every kind of reader first.

    Args:
        operators: label of the reader of each weight, in the order of the graph.
    """
    kinds: dict[str, list[str]] = {}
    for name, label in operators.items():
        kinds.setdefault(label.partition(" ")[0], []).append(name)
    chosen: list[str] = []
    queues = list(kinds.values())
    while any(queues) and len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0 if len(chosen) % 2 else -1))
    return chosen


def compare(
    loss: Callable[[Mapping[str, FloatArray]], float],
    weights: Mapping[str, FloatArray],
    gradients: Mapping[str, FloatArray],
    *,
    names: Sequence[str],
    weight: str,
    operator: str,
    seed: int,
) -> Check:
    """Compare along one direction: the gradient's own and half as much at random, in each tensor by its own size.

    A tensor moves in proportion to its norm, one of zeros like the others on average, so that every layer bends alike
    in whatever unit the outputs are.

    Args:
        loss: of the original with some weights replaced.
        names: weights that are moved together.
        weight, operator: what the check is called.
    """
    generator = np.random.default_rng(seed)
    norms = {name: _norm(weights[name]) for name in names}
    usual = float(np.mean([norm for norm in norms.values() if norm] or [1.0]))
    # All tensors together move by as much of their norm as a single one does.
    share = 1.0 / np.sqrt(len(names))
    directions: dict[str, NDArray[np.float64]] = {}
    for name in names:
        noise = generator.standard_normal(weights[name].shape) / np.sqrt(max(1, weights[name].size))
        slope = _norm(gradients[name])
        own = gradients[name].astype(np.float64) / slope if slope else 0.0
        directions[name] = share * (norms[name] or usual) * (own + 0.5 * noise)
    promised = float(sum(np.sum(gradients[name].astype(np.float64) * directions[name]) for name in names))
    level = abs(loss({}))
    measured: dict[float, float] = {}
    for step in STEPS:
        ends = [
            loss({name: (weights[name] + sign * step * directions[name]).astype(np.float32) for name in names})
            for sign in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2.0 * step)
        measured[step] = slope
        noise_floor = 2e-6 * max(level, *(abs(end) for end in ends), 1e-3) / step
        if abs(slope - promised) <= TOLERANCE * max(abs(slope), abs(promised)) + noise_floor:
            return Check(weight, operator, promised, slope, "right")
    closest = min(measured.values(), key=lambda slope: abs(slope - promised))
    ordered = [measured[step] for step in sorted(measured)]
    settled = any(abs(one - two) <= AGREEMENT * max(abs(one), abs(two)) for one, two in pairwise(ordered))
    return Check(weight, operator, promised, closest, "wrong" if settled else "uncertain")


def _norm(array: Array) -> float:
    return float(np.sqrt(np.sum(array.astype(np.float64) ** 2)))
