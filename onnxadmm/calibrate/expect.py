"""How long a calibration will take, and how much memory, from a few figures of the machine."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup
from onnxadmm.calibrate.effort import WIDEST, Effort
from onnxadmm.calibrate.layers import Layer
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session

Array = NDArray[Any]

#: Iterations of the ADMM of connections, those at each penalty, and steps of conjugate gradients, as they usually come.
_ITERATIONS: Final = 40
_PENALTIES: Final = 5
_STEPS: Final = 30
#: What an entry costs in an iteration beside the product: comparing, sorting, copying.
_ENTRY: Final = 100.0
#: Operations in double precision take twice as long, and factorisations run at half the pace of products.
_DOUBLE: Final = 2.0
_FACTORING: Final = 4.0


@dataclass(frozen=True)
class Speed:
    """How fast the machine is.

    Attributes:
        forward: seconds the model takes for all samples.
        opening: seconds it takes to open a session of the model.
    """

    forward: float
    opening: float


def measured_speed(model: Model, batch: Mapping[str, Array], *, batches: float, threads: int) -> Speed:
    """Open a session of a model, and run it twice: the second time counts.

    Args:
        batches: how many of such batches all samples are.
    """
    start = time.perf_counter()
    with open_session(model, threads=threads) as session:
        opened = time.perf_counter()
        session.run(batch)
        ran = time.perf_counter()
        session.run(batch)
        return Speed((time.perf_counter() - ran) * batches, opened - start)


@dataclass(frozen=True)
class Work:
    """What is expected: seconds, and megabytes beside the model itself."""

    seconds: float
    megabytes: float


def expected_work(
    network: Network,
    groups: Sequence[GateGroup],
    effort: Effort,
    speed: Speed,
    *,
    samples: int,
    shown: int,
    passes: float = 0.0,
    connections: Collection[str] = (),
) -> Work:
    """Return what a calibration at some effort will take.

    Args:
        groups: those that are measured.
        samples: how many there are.
        shown: samples that a loss is measured with.
        passes: what else takes as long as running the model on all samples so often.
        connections: names of the weights of which single entries go.
    """
    layers = network.every_layer if connections else network.layers
    fitted = [_Size.of(network, layer, effort, samples) for layer in layers]
    thinned = [size for size in fitted if size.weight in connections]
    read = [_Size.of(network, layer, effort, samples) for layer in (network.layers if groups else ())]
    nodes = max(1, len(network.model.ir.graph))
    moments = sum(8.0 * size.blocks * size.width**2 for size in read if size.is_narrow)
    # A look begins at the first node that reads what has changed.
    looks = effort.looks * sum(1 - network.first_reader(group.places) / nodes for group in groups)
    probes = sum(1 - size.place / nodes for size in thinned)
    # Every choice is fitted, and looked at, and the best one stands as it is where no connections go.
    tried = len(effort.weights) if groups and len(effort.weights) > 1 else 0
    fits = tried + 1 if connections or not tried else tried
    passes += 1 + 2 * fits + bool(thinned) + (1 + moments // (effort.memory / 2) if groups else 0)
    sessions = 2 * (len(groups) + len(thinned)) + 2 * fits * len(fitted) + len(thinned)
    operations = (
        sum(size.ordering() for size in read)
        + sum(size.fitting(effort) * (fits - (size in thinned)) for size in fitted)
        + sum(size.probing() + size.thinning() for size in thinned)
    )
    largest = max((24.0 * size.blocks * size.width**2 for size in fitted if size.is_narrow), default=0.0)
    activations = 2.0 * 4 * max((size.rows * size.blocks * (size.width + size.outputs) for size in fitted), default=0.0)
    return Work(
        # Sessions are opened of parts, half of the model in the mean.
        seconds=passes * speed.forward
        + (looks + probes + tried) * speed.forward * shown / max(1, samples)
        + sessions * speed.opening / 2
        + operations / _operations_per_second(),
        megabytes=(max(largest, min(moments + largest, effort.memory / 2)) + min(activations, effort.memory / 2)) / 1e6,
    )


@dataclass(frozen=True)
class _Size:
    """A layer in numbers; the methods count operations in single precision, as those of a product of matrices."""

    weight: str
    place: int
    blocks: int
    width: int
    outputs: int
    rows: float

    @staticmethod
    def of(network: Network, layer: Layer, effort: Effort, samples: int) -> "_Size":
        blocks, width, outputs = network.matrix(layer).shape
        shapes = network.units.shapes
        shape = shapes.shape(layer.data)
        # Where the layer reads, in a sample: places of an image, steps of a sequence.
        places = effort.rows if shape is None else prod(shape) * layer.taps / (shapes.batch * blocks * width)
        return _Size(layer.weight, layer.index, blocks, width, outputs, samples * min(effort.rows, places))

    @property
    def is_narrow(self) -> bool:
        return self.width <= WIDEST

    def ordering(self) -> float:
        """Second moments, an inverse, and what is taken from it as units go."""
        if not self.is_narrow:
            return 0.0
        steps = _DOUBLE * (self.width**3 + self.width**2 * self.outputs)
        return self._moments() + self.blocks * (_FACTORING * 2 * self.width**3 + steps)

    def fitting(self, effort: Effort) -> float:
        """Targets, squares and their solution on half of the rows for each ridge, and on all of them."""
        several = len(effort.ridges) > 1
        short = min(self.rows, self.width)  # of rows and columns the fewer make the system
        squares = 2 * self.rows * self.width * short * (1 + several / 2)
        solving = _FACTORING * short**2 * (short + self.outputs)
        products = 2 * self.rows * self.width * self.outputs
        each = 1 + several * len(effort.ridges)
        return self.blocks * (squares + each * solving + (2 + each + 2 * effort.rounds) * products)

    def probing(self) -> float:
        """Second moments and their inverse, by which the entries of a weight are compared."""
        wide = min(self.width, WIDEST)
        return self._moments() + self.blocks * 2 * wide**2 * (_FACTORING * wide + 2 * _DOUBLE * self.outputs)

    def thinning(self) -> float:
        """The splitting by which entries are chosen, and the fit of those that stay."""
        product = _DOUBLE * 2 * min(self.width**2, self.rows * self.width) * self.outputs
        splitting = _PENALTIES * _FACTORING * 2 * self.width**3 + _ITERATIONS * product if self.is_narrow else 0.0
        entries = _ITERATIONS * _ENTRY * self.width * self.outputs
        return 2 * self._moments() + self.blocks * (splitting + 4 * _STEPS * product + entries)

    def _moments(self) -> float:
        return 2 * self.rows * self.blocks * self.width * min(self.width, WIDEST)


@cache
def _operations_per_second() -> float:
    """Of a product of matrices in single precision, as numpy makes it here."""
    matrix = np.ones((512, 512), np.float32)
    matrix @ matrix
    start = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    return 4 * 2 * 512**3 / (time.perf_counter() - start)
