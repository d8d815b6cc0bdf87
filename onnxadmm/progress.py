"""How a long run says what it is doing, without knowing who listens.

Library rooms take a ``Progress`` and call it; the console implements it. The default is silence.
"""

import logging
from collections.abc import Callable
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
        heldout: on held-out data the figure that decides: accuracy in [0, 1], another metric, or of numbers the mean
            square error; None when not measured.
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


@dataclass(frozen=True)
class Stage:
    """A stage begins, and the one before is over.

    Attributes:
        name: of the stage, e.g. ``"prune"``.
        total: steps it will take, None where that is not known.

    Examples:
        ```python
        oa.compress("model.onnx", calibrate=images, budget={"params": 0.5}, bench=False, progress=print)
        print(oa.Stage("calibrate", 4))  # one of the events that were printed
        ```
    """

    name: str
    total: int | None


@dataclass(frozen=True)
class Advance:
    """Steps of the current stage are done.

    Attributes:
        steps: how many since the last time.

    Examples:
        ```python
        def count(event):
            if isinstance(event, oa.Advance):
                print(event.steps)


        oa.compress("model.onnx", calibrate=images, budget={"params": 0.5}, bench=False, progress=count)
        ```
    """

    steps: int


@dataclass(frozen=True)
class Note:
    """Something to read.

    Attributes:
        sentence: one sentence; warnings begin with ``"Warning: "``.

    Examples:
        ```python
        notes = []
        oa.compress("model.onnx", calibrate=images, budget={"params": 0.5}, bench=False, progress=notes.append)
        print([event.sentence for event in notes if isinstance(event, oa.Note)])
        ```
    """

    sentence: str


#: What a callback is called with.
Event = Stage | Advance | Iteration | Note


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


class Called:
    """A ``Progress`` that calls a function with every event."""

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self._callback = callback

    def stage(self, name: str, *, total: int | None = None) -> None:
        """Call with a ``Stage``."""
        self._callback(Stage(name, total))

    def advance(self, steps: int = 1) -> None:
        """Call with an ``Advance``."""
        self._callback(Advance(steps))

    def iteration(self, row: Iteration) -> None:
        """Call with the ``Iteration``."""
        self._callback(row)

    def note(self, sentence: str) -> None:
        """Call with a ``Note``."""
        self._callback(Note(sentence))


class LoggedProgress:
    """A ``Progress`` that logs under the one logger ``onnxadmm``: warnings as such, all else as information.

    Examples:
        ```python
        import logging

        logging.basicConfig(level=logging.INFO)
        progress = oa.LoggedProgress()
        oa.compress("model.onnx", calibrate=images, budget={"params": 0.5}, bench=False, progress=progress)
        ```
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("onnxadmm")

    def stage(self, name: str, *, total: int | None = None) -> None:
        """Log its name, and of how many steps it is."""
        self._logger.info("%s%s", name, "" if total is None else f", {total} steps")

    def advance(self, steps: int = 1) -> None:
        """Log nothing: every iteration is logged."""

    def iteration(self, row: Iteration) -> None:
        """Log number, loss and held-out figure, and what the units kept cost."""
        heldout = "" if row.heldout is None else f", held-out {row.heldout:.4f}"
        cost = "" if row.cost is None or row.budget is None else f", cost {row.cost:.4g} of {row.budget:.4g}"
        self._logger.info("%s %d: loss %.4g%s%s", row.stage, row.iteration, row.loss, heldout, cost)

    def note(self, sentence: str) -> None:
        """Log the sentence, as a warning where it is one."""
        warns = sentence.startswith("Warning: ")
        self._logger.log(logging.WARNING if warns else logging.INFO, "%s", sentence.removeprefix("Warning: "))


#: Who may listen to a call from Python: True for the console's bars, False for nobody, a callback, a ``Progress``.
ProgressLike = Progress | Callable[[Event], object] | bool
