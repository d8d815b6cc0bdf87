"""Settings of a run, and the set that follows the paper."""

from dataclasses import dataclass
from typing import Literal

from onnxadmm.errors import OptionError

Mode = Literal["joint", "holistic"]
Method = Literal["admm", "paper"]


@dataclass(frozen=True)
class Settings:
    """How the solver runs.

    Attributes:
        mode: ``"holistic"`` has one budget for all units and one threshold for all connections; ``"joint"`` has a
            target for every layer.
        method: ``"admm"`` chooses units by their importance per cost while the budget falls; ``"paper"`` splits
            ``{0,1}^m`` into box and sphere and lets the gates decide.
        epochs: passes over the training data.
        iterations_per_epoch: ADMM iterations (projection and dual steps) per epoch.
        learning_rate: peak of the learning rate of the weights.
        warm_up: share of the run in which the learning rate rises.
        budget_ramp: share of the run in which the budget falls from the whole network to the target; 0 asks for
            the target from the start.
        importance_memory: iterations over which the running mean of the units' importance forgets.
        gate_step: step size of the gates (``"admm"``: of the proximal step; ``"paper"``: learning rate of Adam).
        gate_penalty: first and last ``rho`` of the neurons; it grows geometrically.
        connection_penalty: first and last ``rho`` of the connections.
        divergence_factor: an iteration whose mean loss exceeds this many times the best one (and
            ``divergence_floor``) has diverged.
        divergence_floor: mean loss that is never held to be divergence; a run that starts near zero loss has to be
            allowed to rise when the network shrinks.
    """

    mode: Mode = "holistic"
    method: Method = "admm"
    epochs: int = 5
    iterations_per_epoch: int = 8
    learning_rate: float = 1e-3
    warm_up: float = 0.1
    budget_ramp: float = 0.6
    importance_memory: float = 3.0
    gate_step: float = 1.0
    gate_penalty: tuple[float, float] = (1e-3, 1.0)
    connection_penalty: tuple[float, float] = (1e-4, 1e-1)
    divergence_factor: float = 10.0
    divergence_floor: float = 10.0

    def __post_init__(self) -> None:
        _require(self.mode in ("joint", "holistic"), "--mode", "joint or holistic", self.mode)
        _require(self.method in ("admm", "paper"), "--method", "admm or paper", self.method)
        _require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        _require(self.iterations_per_epoch >= 1, "iterations_per_epoch", "at least 1", self.iterations_per_epoch)
        _require(self.learning_rate > 0, "--learning-rate", "more than 0", self.learning_rate)
        _require(0 <= self.warm_up < 1, "warm_up", "a share in [0, 1)", self.warm_up)
        _require(0 <= self.budget_ramp <= 1, "budget_ramp", "a share in [0, 1]", self.budget_ramp)
        _require(self.importance_memory > 0, "importance_memory", "more than 0 iterations", self.importance_memory)
        _require(self.gate_step > 0, "gate_step", "more than 0", self.gate_step)
        for name, pair in (("gate_penalty", self.gate_penalty), ("connection_penalty", self.connection_penalty)):
            _require(len(pair) == 2 and 0 < pair[0] <= pair[1], name, "0 < first <= last", pair)
        _require(self.divergence_factor > 1, "divergence_factor", "more than 1", self.divergence_factor)
        _require(self.divergence_floor >= 0, "divergence_floor", "at least 0", self.divergence_floor)

    def rounds(self, steps_per_epoch: int) -> int:
        """Return the iterations of the whole run: an epoch has at most as many as steps."""
        return self.epochs * min(self.iterations_per_epoch, steps_per_epoch)


def paper_settings(*, mode: Mode = "holistic", epochs: int = 5) -> Settings:
    """Settings as in the paper: the target from the start, one iteration per epoch, a fixed ``rho`` of 1.5e-3.

    Source: Lee & Lee, "DNN compression by ADMM-based joint pruning", Knowledge-Based Systems 239, 2022.
    The weights and the gates are trained by Adam here.
    """
    return Settings(
        mode=mode,
        method="paper",
        epochs=epochs,
        iterations_per_epoch=1,
        budget_ramp=0.0,
        gate_step=1e-3,
        gate_penalty=(1.5e-3, 1.5e-3),
        connection_penalty=(1.5e-3, 1.5e-3),
    )


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise OptionError(name, expected=expected, found=str(found), way_out="choose a value within that range")
