"""What else was tried while several machines retrain: consensus, and a step further than to their mean (DiLoCo).

Nothing is chosen any more by then, and the constraint is settled. So the driver takes the mean of copies that nothing
draws together, which is local SGD. It may draw them, with a penalty and duals as in pruning; or it may step further
than to the mean (Douillard et al., "DiLoCo", 2023): with ``D`` what the mean has moved in a round,
``m = momentum m + D`` and ``W = W + rate (D + momentum m)``.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import numpy as np

import onnxadmm as oa
from onnxadmm.cluster.consensus import Consensus
from onnxadmm.run.together import Answer, FloatArray, Job, Together, packed, unpack

#: Outer rate and momentum by what the page calls them; None: consensus.
WAYS: Final[dict[str, tuple[float, float] | None]] = {
    "consensus": None,
    "the mean": (1.0, 0.0),
    "outer rate 0.7, momentum 0.9": (0.7, 0.9),
}
MACHINES: Final = (2, 4)
#: Most steps of a round; the longer one is an epoch.
STEPS: Final = (8, 64)
_TEAM: Final = "onnxadmm.run.trainings.Together"

Result = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How the machines retrain.

    Attributes:
        outer: rate and momentum of the driver's step; None: consensus.
        local_steps: most steps of a round.
    """

    outer: tuple[float, float] | None
    local_steps: int

    def team(self, rounds: Any, job: Job, trainer: Any, *, local_steps: int) -> Together:
        """Return what takes the steps, in place of ``Together``."""
        assert job.problem is None  # the pruned network was found in the checkpoint
        if self.outer is not None:
            return Outer(self.outer, rounds, job, trainer, local_steps=self.local_steps)
        drawn = Together(rounds, job, trainer, local_steps=self.local_steps)
        drawn._consensus = Consensus(packed(trainer.weights, job.names))
        return drawn


class Outer(Together):
    """A training over machines whose driver takes outer steps."""

    def __init__(self, outer: tuple[float, float], rounds: Any, job: Job, trainer: Any, *, local_steps: int) -> None:
        super().__init__(rounds, job, trainer, local_steps=local_steps)
        self._outer = outer
        self._momentum: FloatArray = np.zeros_like(packed(trainer.weights, job.names))

    def _round(self, first: int, rates: tuple[float, ...], **pruning: Any) -> list[Answer]:
        before = packed(self._trainer.weights, self._names)
        timely = super()._round(first, rates, **pruning)
        rate, momentum = self._outer
        moved = packed(self._trainer.weights, self._names) - before
        self._momentum *= momentum
        self._momentum += moved
        before += rate * (moved + momentum * self._momentum)
        unpack(before, self._trainer.weights, self._names)
        return timely


class _PrunedError(Exception):
    """All up to retraining is done."""


def _only_prune(rounds: Any, job: Job, trainer: Any, *, local_steps: int) -> Together:
    if job.problem is None:
        raise _PrunedError
    return Together(rounds, job, trainer, local_steps=local_steps)


def tried(compress: Callable[..., oa.Compressed]) -> list[Result]:
    """Return accuracies and last losses of all ways, each from the same pruned network.

    Args:
        compress: makes a run on some machines, given where, its folder and whether it goes on there.
    """
    found = []
    for count in MACHINES:
        with TemporaryDirectory() as folder:
            begun = Path(folder) / "begun"
            with patch(_TEAM, _only_prune), suppress(_PrunedError):
                compress(f"local:{count}", out=begun, resume=False)
            for steps in STEPS:
                for name, outer in WAYS.items():
                    out = Path(shutil.copytree(begun, Path(folder) / f"{name}-{steps}"))
                    with patch(_TEAM, Way(outer, steps).team):
                        result = compress(f"local:{count}", out=out, resume=True)
                    assert result.after.test is not None
                    last = [row for row in result.report.history if row.stage == "retrain"][-1]
                    told = {"way": name, "machines": count, "local_steps": steps}
                    found.append({**told, "test": result.after.test.value, "loss": last.loss})
    return found
