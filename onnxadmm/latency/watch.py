"""A network without some of its units, timed against the whole one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.bench.latency import measure_latency
from onnxadmm.errors import ModelFileError
from onnxadmm.graph.constants import stored_bytes
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.units import Units

KeepArray = NDArray[np.bool_]

#: Networks that take turns with the whole one, as long as their weights take no more bytes than these.
_MOST_AT_ONCE: Final = 7
_MOST_BYTES: Final = 2**29


@dataclass(frozen=True)
class Watch:
    """What times networks.

    Attributes:
        model: the whole one.
        units: of it.
        batch: batch size.
        threads: threads one operator may use.
        seed: of the inputs.
        inputs: values of some inputs by name; the others are random.
    """

    model: Model
    units: Units
    batch: int
    threads: int
    seed: int = 0
    inputs: Mapping[str, object] = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        """How many networks take turns with the whole one."""
        return max(1, min(_MOST_AT_ONCE, _MOST_BYTES // max(1, stored_bytes(self.model))))

    def whole(self, *, seconds: float) -> float:
        """Return milliseconds of the whole network."""
        return self._timed([], seconds=seconds)[0]

    def against(self, keeps: Sequence[KeepArray], *, seconds: float) -> tuple[float, list[float]]:
        """Return milliseconds of the whole network, and of each plan the share of these that its network takes.

        Args:
            keeps: at most ``at_once`` plans, bool ``[units.count]`` each.
            seconds: for each network.

        Raises:
            ModelFileError: a network does not run at this batch size.
        """
        return self._timed([shrink(self.model, self.units, keep) for keep in keeps], seconds=seconds)

    def _timed(self, small: Sequence[Model], *, seconds: float) -> tuple[float, list[float]]:
        models = [self.model, *small]
        found = measure_latency(
            models,
            names=[str(number) for number in range(len(models))],
            batches=(self.batch,),
            threads=self.threads,
            seconds=seconds * len(models),
            seed=self.seed,
            inputs=self.inputs,
        )
        (result,) = found.results
        return result.timings[0].median_ms, [1.0 / speedup.ratio for speedup in result.speedups]


def batch_of(model: Model, wanted: int) -> int:
    """Return the batch size a model is timed at.

    Raises:
        ModelFileError: the file fixes another one.
    """
    if batch_is_free(model):
        return wanted
    fixed = fixed_batch(model)
    if wanted not in (1, fixed):
        raise ModelFileError(
            "--latency-batch",
            expected=f"{fixed}, the batch size that the model fixes",
            found=str(wanted),
            way_out="leave it out, or export the model with a free batch axis",
        )
    return fixed
