"""What a measurement of plans leaves behind."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """What was measured, as it is kept for the next run.

    Attributes:
        steps: what lengths are rounded up to.
        fixed: share of the whole network's time that no unit changes.
        terms: shares of the whole network's time, float64 ``[steps, terms]``.
        plans: how many plans it comes from.
        error: mean relative error for plans that it was not fitted to.
        worst: largest one.
        seconds: that the measurement took.
    """

    steps: tuple[int, ...]
    fixed: float
    terms: NDArray[np.float64]
    plans: int
    error: float
    worst: float
    seconds: float
