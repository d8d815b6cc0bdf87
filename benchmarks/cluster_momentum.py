"""What else was tried while several machines retrain: an outer step along what their mean has moved (DiLoCo).

Nothing is chosen any more by then, and the constraint is settled. So a round may begin without a penalty and without
duals, and the driver may step further than to the mean (Douillard et al., "DiLoCo", 2023): with ``D`` what the mean has
moved in a round, ``m = momentum m + D`` and ``W = W + rate (D + momentum m)``. A rate of 1 without momentum takes the
mean itself, which is local SGD.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import numpy as np

import onnxadmm as oa
from onnxadmm.cluster.consensus import Consensus
from onnxadmm.run.together import Answer, FloatArray, Job, Together, packed, unpack

#: Outer rate and momentum by what the page calls them; None: consensus as it is.
WAYS: Final[dict[str, tuple[float, float] | None]] = {
    "consensus": None,
    "mean": (1.0, 0.0),
    "0.7, 0.9": (0.7, 0.9),
}
MACHINES: Final = (2, 4)
#: Most steps of a round; the longer one is an epoch.
STEPS: Final = (8, 64)

Result = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How the machines retrain.

    Attributes:
        outer: rate and momentum of the driver's step; None: consensus as it is.
        local_steps: most steps of a round of retraining; pruning has its own.
    """

    outer: tuple[float, float] | None
    local_steps: int

    def team(self, *words: Any, **more: Any) -> Together:
        """Return what stands for ``Together``."""
        return Outer(self, *words, **more)


class Outer(Together):
    """A training over machines whose retraining takes outer steps."""

    def __init__(self, way: Way, rounds: Any, job: Job, trainer: Any, *, local_steps: int) -> None:
        retrains = job.problem is None
        super().__init__(rounds, job, trainer, local_steps=way.local_steps if retrains else local_steps)
        self._outer = way.outer if retrains else None
        self._momentum: FloatArray = np.zeros_like(packed(trainer.weights, job.names))
        if self._outer is not None:
            self._consensus = Consensus(packed(trainer.weights, job.names), rho=0.0)  # and so it stays

    def _round(self, first: int, rates: tuple[float, ...], **pruning: Any) -> list[Answer]:
        before = packed(self._trainer.weights, self._names)
        timely = super()._round(first, rates, **pruning)
        if self._outer is not None:
            rate, momentum = self._outer
            moved = packed(self._trainer.weights, self._names) - before
            self._momentum *= momentum
            self._momentum += moved
            before += rate * (moved + momentum * self._momentum)
            unpack(before, self._trainer.weights, self._names)
        return timely


def tried(compress: Callable[[str], oa.Compressed], machines: Sequence[int] = MACHINES) -> list[Result]:
    """Return accuracies and last losses of all ways.

    Args:
        compress: makes a whole run with a ``--cluster``.
    """
    found = []
    for count in machines:
        for steps in STEPS:
            for name, outer in WAYS.items():
                with patch("onnxadmm.run.trainings.Together", Way(outer, steps).team):
                    result = compress(f"local:{count}")
                assert result.after.test is not None
                last = [row for row in result.report.history if row.stage == "retrain"][-1]
                told = {"way": name, "machines": count, "local_steps": steps}
                found.append({**told, "test": result.after.test.value, "loss": last.loss})
    return found
