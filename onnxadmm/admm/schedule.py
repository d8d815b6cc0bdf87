"""Curves over a run, whose ``progress`` goes from 0 to 1: budget, penalty and learning rate."""

import math


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
    if ramp <= 0.0 or progress >= ramp or target >= full:
        return target
    return target * math.pow(full / target, (1.0 - progress / ramp) ** 1.5)


def penalty_at(progress: float, *, first: float, last: float) -> float:
    """Penalty ``rho`` on the geometric curve from ``first`` to ``last``."""
    return first * math.pow(last / first, min(max(progress, 0.0), 1.0))


def learning_rate_at(progress: float, *, peak: float, warm_up: float, end_factor: float = 0.01) -> float:
    """Linear rise to ``peak`` over the share ``warm_up``, then half a cosine down to ``peak * end_factor``."""
    if progress < warm_up:
        return peak * max(progress / warm_up, end_factor)
    fall = (progress - warm_up) / max(1.0 - warm_up, 1e-12)
    return peak * (end_factor + (1.0 - end_factor) * 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0))))
