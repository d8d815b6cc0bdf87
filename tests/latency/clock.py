"""A clock that knows how long a network takes, so that tests do not depend on how busy the machine is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnxadmm.bench.latency import Latencies, Latency, Speedup, Timing
from onnxadmm.graph.model import Model
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import find_units


def milliseconds(model: Model, batch: int = 1) -> float:
    """What a network takes: a start, its products, and its weights, which no table knows of."""
    units = find_units(model)
    return 0.02 + batch * 1e-6 * Cost(units, "macs").dense() + 4e-7 * Cost(units, "params").dense()


class Clock:
    """Stands for ``measure_latency``.

    Attributes:
        timed: how many networks were timed.
        noise: deviation of a measurement, relative.
    """

    def __init__(self, noise: float) -> None:
        self.timed = 0
        self.noise = noise
        self._generator = np.random.default_rng(0)

    def __call__(self, models: Sequence[Model], *, batches: Sequence[int], threads: int, **_: Any) -> Latencies:
        self.timed += len(models)
        (batch,) = batches
        taken = [milliseconds(model, batch) * float(np.exp(self._generator.normal(0, self.noise))) for model in models]
        timings = tuple(Timing(str(place), each, each, each, 1) for place, each in enumerate(taken))
        ratios = tuple(Speedup(str(place), taken[0] / each, 0.0, 9.0) for place, each in enumerate(taken) if place)
        return Latencies((Latency(batch, threads, 1, (), timings, ratios),), ())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """Time networks by what they compute, to a percent, and keep what was measured in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    made = Clock(noise=0.01)
    monkeypatch.setattr("onnxadmm.latency.watch.measure_latency", made)
    return made
