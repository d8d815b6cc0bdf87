"""A two-layer network in numpy with hand-written gradients and AdamW: what the solver needs, and nothing else."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import FloatArray, GateGroup, Problem, Reader

TinyBatch = tuple[NDArray[np.float32], NDArray[np.int64]]


class TinyTrainer:
    """``softmax(b + B tanh(a + A x))`` with cross-entropy; weights and gradients are live views."""

    def __init__(self, *, inputs: int = 6, hidden: int = 12, classes: int = 3, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._weights: dict[str, FloatArray] = {
            "first.weight": (generator.standard_normal((hidden, inputs)) * 0.5).astype(np.float32),
            "first.bias": np.zeros(hidden, dtype=np.float32),
            "second.weight": (generator.standard_normal((classes, hidden)) * 0.5).astype(np.float32),
            "second.bias": np.zeros(classes, dtype=np.float32),
        }
        self._gradients = {name: np.zeros_like(array) for name, array in self._weights.items()}
        self._mean = {name: np.zeros_like(array) for name, array in self._weights.items()}
        self._square = {name: np.zeros_like(array) for name, array in self._weights.items()}
        self.updates = 0

    @property
    def weights(self) -> dict[str, FloatArray]:
        return self._weights

    @property
    def gradients(self) -> dict[str, FloatArray]:
        return self._gradients

    def loss(self, batch: TinyBatch) -> float:
        """Loss in float64, for finite differences."""
        x, y = batch
        w = {name: array.astype(np.float64) for name, array in self._weights.items()}
        hidden = np.tanh(x @ w["first.weight"].T + w["first.bias"])
        logits = hidden @ w["second.weight"].T + w["second.bias"]
        logits -= logits.max(axis=1, keepdims=True)
        log_share = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-log_share[np.arange(y.size), y].mean())

    def accuracy(self, batch: TinyBatch) -> float:
        x, y = batch
        w = self._weights
        hidden = np.tanh(x @ w["first.weight"].T + w["first.bias"])
        return float(((hidden @ w["second.weight"].T + w["second.bias"]).argmax(axis=1) == y).mean())

    def backward(self, batch: TinyBatch) -> float:
        x, y = batch
        w, g = self._weights, self._gradients
        hidden = np.tanh(x @ w["first.weight"].T + w["first.bias"])
        logits = hidden @ w["second.weight"].T + w["second.bias"]
        logits -= logits.max(axis=1, keepdims=True)
        share = np.exp(logits)
        share /= share.sum(axis=1, keepdims=True)
        loss = float(-np.log(share[np.arange(y.size), y]).mean())
        share[np.arange(y.size), y] -= 1.0
        share /= y.size
        back = (share @ w["second.weight"]) * (1.0 - hidden**2)
        g["second.weight"][...] = share.T @ hidden
        g["second.bias"][...] = share.sum(axis=0)
        g["first.weight"][...] = back.T @ x
        g["first.bias"][...] = back.sum(axis=0)
        return loss

    def update(self, learning_rate: float) -> None:
        self.updates += 1
        for name, weight in self._weights.items():
            gradient = self._gradients[name]
            self._mean[name] += np.float32(0.1) * (gradient - self._mean[name])
            self._square[name] += np.float32(0.001) * (gradient**2 - self._square[name])
            mean = self._mean[name] / (1 - 0.9**self.updates)
            square = self._square[name] / (1 - 0.999**self.updates)
            weight -= np.float32(learning_rate) * (mean / (np.sqrt(square) + 1e-8) + np.float32(1e-4) * weight)


@dataclass(frozen=True)
class TinyData:
    """Three noisy directions in six dimensions; ``batches(epoch)`` shuffles by epoch."""

    size: int = 512
    batch: int = 32
    seed: int = 0
    x: NDArray[np.float32] = field(init=False)
    y: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        y = generator.integers(0, 3, self.size)
        x = generator.standard_normal((self.size, 6)) * 0.6 + np.eye(3, 6)[y] * 2.0
        object.__setattr__(self, "x", x.astype(np.float32))
        object.__setattr__(self, "y", y.astype(np.int64))

    @property
    def steps(self) -> int:
        return self.size // self.batch

    @property
    def whole(self) -> TinyBatch:
        return self.x, self.y

    def __call__(self, epoch: int, first: int = 0) -> Iterator[TinyBatch]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        for start in range(first * self.batch, self.steps * self.batch, self.batch):
            rows = order[start : start + self.batch]
            yield self.x[rows], self.y[rows]


@dataclass(frozen=True)
class ChainCost:
    """Multiply-adds of a chain of dense layers ``inputs - groups... - outputs``: bilinear, as real costs are."""

    inputs: int
    sizes: tuple[int, ...]
    outputs: int

    def _widths(self, keep: NDArray[np.bool_]) -> list[float]:
        edges = np.cumsum((0, *self.sizes))
        kept = [float(keep[start:end].sum()) for start, end in itertools.pairwise(edges)]
        return [float(self.inputs), *kept, float(self.outputs)]

    def total(self, keep: NDArray[np.bool_]) -> float:
        widths = self._widths(keep)
        return float(sum(a * b for a, b in itertools.pairwise(widths)))

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        widths = self._widths(keep)
        return np.concatenate(
            [np.full(size, widths[index] + widths[index + 2]) for index, size in enumerate(self.sizes)]
        )


def free_group(name: str, start: int, count: int, *, keep_at_least: int = 1, multiple: int = 1) -> GateGroup:
    return GateGroup(
        name=name,
        start=start,
        count=count,
        keep_at_least=keep_at_least,
        keep_at_most_removed=count - keep_at_least,
        multiple=multiple,
        blocks=None,
    )


def tiny_problem(
    *,
    hidden: int = 12,
    budget: float = 36.0,
    connections: tuple[str, ...] = (),
    share: float = 1.0,
    keep_counts: tuple[int, ...] | None = None,
) -> Problem:
    """The hidden units of ``TinyTrainer``: each costs its six inputs and three outputs."""
    units = np.arange(hidden)
    return Problem(
        unit_count=hidden,
        groups=(free_group("hidden", 0, hidden),),
        readers=(Reader(tensor="second.weight", axis=1, units=units),),
        cost=ChainCost(inputs=6, sizes=(hidden,), outputs=3),
        budget=budget,
        connections=connections,
        connection_share=share,
        writers=(Reader(tensor="first.weight", axis=0, units=units),),
        keep_counts=keep_counts,
    )
