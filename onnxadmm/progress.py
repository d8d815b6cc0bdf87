"""How a long run says what it is doing, without knowing who listens.

Library rooms take a ``Progress`` and call it; the console implements it. The default is silence.
"""

from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True)
class Residuals:
    """How far one splitting is from agreement.

    Attributes:
        primal: norm of ``x - z``.
        dual: norm of ``rho (z - z_previous)``.
        rho: penalty weight.

    Examples:
        ```python
        apart = oa.Residuals(primal=0.5, dual=0.1, rho=1e-3)
        ```
    """

    primal: float
    dual: float
    rho: float


@dataclass(frozen=True)
class Iteration:
    """One iteration of training, as shown on the console, in ``history.jsonl`` and on the page of the report.

    Attributes:
        stage: which training this is, e.g. ``"prune"`` or ``"retrain"``.
        iteration: number within the stage, from 1.
        epoch: passes over the training data so far within the stage, a fraction within an epoch.
        loss: mean training loss over the iteration, without penalties.
        heldout: held-out accuracy in [0, 1] (or the held-out metric of another loss), None when not measured.
        learning_rate: of the iteration's last step.
        neurons: residuals of the gates, None where there is no such splitting (retraining).
        connections: residuals of the single weights, None where connections are left alone.
        cost: what the units kept now cost, in the unit of the budget; None without a budget.
        budget: what they may cost at this iteration, in the same unit; None without a budget.
        kept_units: units that would stay now; None where units are not chosen.

    Examples:
        ```python
        def shown(row: oa.Iteration) -> str:
            return f"{row.stage} {row.iteration}: loss {row.loss:.3f}, {row.kept_units} units"
        ```
    """

    stage: str
    iteration: int
    epoch: float
    loss: float
    heldout: float | None
    learning_rate: float
    neurons: Residuals | None
    connections: Residuals | None
    cost: float | None
    budget: float | None
    kept_units: int | None


class Progress(Protocol):
    """Somebody who is told what happens, in this order: ``stage``, its ``advance`` calls, the next ``stage``.

    Examples:
        ```python
        class Printed:
            def stage(self, name, *, total=None):
                print(name)

            def advance(self, steps=1):
                pass

            def iteration(self, row):
                print(row.iteration, row.loss)

            def note(self, sentence):
                print(sentence)


        oa.compress("model.onnx", calibrate=images, budget={"macs": 0.6}, bench=False, progress=Printed())
        ```
    """

    def stage(self, name: str, *, total: int | None = None) -> None:
        """End the stage before and begin the next one, of ``total`` steps (None: unknown)."""
        ...

    def advance(self, steps: int = 1) -> None:
        """``steps`` more steps of the current stage are done."""
        ...

    def iteration(self, row: Iteration) -> None:
        """An iteration of training ended."""
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
