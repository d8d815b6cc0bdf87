"""What runs with the same model, data and options, but other budgets, pass on to each other."""

from dataclasses import dataclass, field

from onnxadmm.admm.state import State, part, under
from onnxadmm.run.trainings import Pruned, pruned_of


@dataclass
class Shared:
    """What the runs so far have left for the next; a run reads it and puts its own in its place.

    Attributes:
        calibration: what a calibration has measured of the groups; it knows of no budget.
        pruned: the smallest network so far, before it was retrained: where the next training begins. Its budget must
            be below that one's.
        epochs: share of the recipe's epochs of pruning that the next run takes.
    """

    calibration: State = field(default_factory=dict)
    pruned: Pruned | None = None
    epochs: float = 1.0

    def state(self) -> State:
        """All of it but the epochs, for a file."""
        return {
            **under("calibration", self.calibration),
            **(under("pruned", self.pruned.state()) if self.pruned is not None else {}),
        }

    def load(self, state: State) -> None:
        """Take up what ``state`` gave."""
        self.calibration, self.pruned = part(state, "calibration"), pruned_of(part(state, "pruned"))
