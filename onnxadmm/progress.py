"""How a long run says what it is doing, without knowing who listens.

Library rooms take a ``Progress`` and call it; the console implements it. The default is silence.
"""

from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True)
class Iteration:
    """One outer iteration of the splitting, as shown on the console, in ``history.jsonl`` and in the report.

    Attributes:
        iteration: number from 1.
        loss: mean training loss over the iteration.
        heldout: held-out accuracy in [0, 1] (or the held-out metric of the loss), None when it was not measured.
        primal: norm of x - z; None where there is no splitting (retraining).
        dual: norm of rho (z - z_previous); None where there is no splitting.
        rho: penalty weight; None where there is no splitting.
        cost: what the units kept now cost, in the unit of the budget; None without a budget.
        budget: what they may cost at this iteration, in the same unit; None without a budget.
    """

    iteration: int
    loss: float
    heldout: float | None
    primal: float | None
    dual: float | None
    rho: float | None
    cost: float | None
    budget: float | None


class Progress(Protocol):
    """Somebody who is told what happens, in this order: ``stage``, its ``advance`` calls, the next ``stage``."""

    def stage(self, name: str, *, total: int | None = None) -> None:
        """End the stage before and begin the next one, of ``total`` steps (None: unknown)."""
        ...

    def advance(self, steps: int = 1) -> None:
        """``steps`` more steps of the current stage are done."""
        ...

    def iteration(self, row: Iteration) -> None:
        """An outer iteration ended."""
        ...

    def note(self, sentence: str) -> None:
        """Something the user should read, one sentence."""
        ...


class Silent:
    """A ``Progress`` that says nothing."""

    def stage(self, name: str, *, total: int | None = None) -> None:
        """Say nothing."""

    def advance(self, steps: int = 1) -> None:
        """Say nothing."""

    def iteration(self, row: Iteration) -> None:
        """Say nothing."""

    def note(self, sentence: str) -> None:
        """Say nothing."""


SILENT: Final[Progress] = Silent()
