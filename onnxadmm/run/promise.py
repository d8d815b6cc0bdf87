"""The smallest network that keeps a promise: budgets halved between one that keeps it and one that does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Budgets that are tried at most, and how near the last two are to each other when that is near enough.
MOST_TRIES: Final = 8
_NEAR: Final = 1.04


@dataclass(frozen=True)
class Try(Generic[T]):
    """A network under one budget.

    Attributes:
        share: of the original that it costs.
        lost: by it, in the unit of the promise.
        made: what it is made of.
    """

    share: float
    lost: float
    made: T


def smallest(
    attempt: Callable[[float], Try[T]],
    *,
    most: float,
    lowest: float,
    on_try: Callable[[Try[T]], None] = lambda tried: None,
) -> Try[T] | None:
    """Find the network of the least cost that loses no more than ``most``.

    Shares of the cost are halved on a logarithmic scale, as a network that may cost less loses more; where one loses
    less than a larger one by chance, the smaller is taken.

    Args:
        attempt: makes and measures the network of a share of the cost.
        lowest: share below which there is none.
        on_try: told of each.

    Returns:
        None where no network that was tried keeps the promise.
    """
    kept, low, high = None, min(lowest, 1.0), 1.0
    for _ in range(MOST_TRIES):
        tried = attempt(math.sqrt(low * high))
        on_try(tried)
        if tried.lost <= most:
            kept, high = tried, tried.share
        else:
            low = math.sqrt(low * high)
        if high <= low * _NEAR:
            break
    return kept
