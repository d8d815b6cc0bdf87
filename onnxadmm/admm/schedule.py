"""Curves over a run, whose ``progress`` goes from 0 to 1: budget, penalty and learning rate."""

import math
from dataclasses import dataclass

from onnxadmm.admm.settings import Settings


@dataclass(frozen=True)
class Moment:
    """What the curves give one ADMM iteration.

    Attributes:
        learning_rates: of each of its training steps, of which there is at least one.
        steps_after: training steps of the whole run once it is over.
        gate_rho: penalty of the gates.
        connection_rho: penalty of the connections.
        budget: most that the kept units may cost, in the cost's unit.
        connection_power: to which the shares of connections that stay in the end are taken: 0 keeps all of them.
    """

    learning_rates: tuple[float, ...]
    steps_after: int
    gate_rho: float
    connection_rho: float
    budget: float
    connection_power: float


@dataclass(frozen=True)
class Schedule:
    """The curves of a run, cut into ADMM iterations of nearly equal numbers of training steps.

    Attributes:
        steps: training steps of the run.
        iterations: ADMM iterations of the run, at most as many.
        full: cost of the whole network.
        budget: cost that is asked for in the end.
    """

    settings: Settings
    steps: int
    iterations: int
    full: float
    budget: float

    def steps_before(self, iteration: int) -> int:
        """Training steps of the whole run before an iteration, which counts from 1."""
        return (iteration - 1) * self.steps // self.iterations

    def at(self, iteration: int) -> Moment:
        """Read the curves: penalties and learning rates where the steps are, budget and share where they end."""
        settings = self.settings
        first, last = self.steps_before(iteration), self.steps_before(iteration + 1)
        begun, over = first / self.steps, last / self.steps
        rates = (
            learning_rate_at((step + 0.5) / self.steps, peak=settings.learning_rate, warm_up=settings.warm_up)
            for step in range(first, last)
        )
        gate, connection = settings.gate_penalty, settings.connection_penalty
        ramp = settings.budget_ramp
        return Moment(
            learning_rates=tuple(rates),
            steps_after=last,
            gate_rho=penalty_at(begun, first=gate[0], last=gate[1]),
            connection_rho=penalty_at(begun, first=connection[0], last=connection[1]),
            budget=budget_at(over, full=self.full, target=self.budget, ramp=ramp),
            connection_power=1.0 - left_at(over, ramp=ramp),
        )


def budget_at(progress: float, *, full: float, target: float, ramp: float) -> float:
    """Budget that falls from ``full`` to ``target``, fast first and slow at the end, in proportion to itself.

        target (full / target)^((1 - progress/ramp)^1.5)

    The cubic curve of Zhu & Gupta, "To prune, or not to prune", 2017, measures its steps in shares of the whole
    network; on the way to a hundredth of the parameters each of its last steps takes a third of what is left. Here a
    step takes a share of what is left, and ever smaller ones.

    Args:
        progress: share of the run that is over.
        full: cost of the whole network.
        target: final budget, more than 0; from ``full`` on there is nothing to fall.
        ramp: share of the run during which the budget falls; 0 asks for the target at once.
    """
    return target if target >= full else target * math.pow(full / target, left_at(progress, ramp=ramp))


def left_at(progress: float, *, ramp: float) -> float:
    """What is left of the way that a budget falls, in logarithms, from 1 to 0: ``(1 - progress/ramp)^1.5``.

    Args:
        progress, ramp: as for ``budget_at``.
    """
    return 0.0 if ramp <= 0.0 or progress >= ramp else (1.0 - progress / ramp) ** 1.5


def penalty_at(progress: float, *, first: float, last: float) -> float:
    """Penalty ``rho`` on the geometric curve from ``first`` to ``last``."""
    return first * math.pow(last / first, min(max(progress, 0.0), 1.0))


def learning_rate_at(progress: float, *, peak: float, warm_up: float, end_factor: float = 0.01) -> float:
    """Linear rise to ``peak`` over the share ``warm_up``, then half a cosine down to ``peak * end_factor``."""
    if progress < warm_up:
        return peak * max(progress / warm_up, end_factor)
    fall = (progress - warm_up) / max(1.0 - warm_up, 1e-12)
    return peak * (end_factor + (1.0 - end_factor) * 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0))))
