"""What runs with the same model, data and options, but other budgets, pass on to each other."""

from dataclasses import dataclass, field
from pathlib import Path

from onnxadmm.admm.state import State, part, under
from onnxadmm.plan.budget import COUNTED
from onnxadmm.run.checkpoint import Header, read_checkpoint, write_checkpoint
from onnxadmm.run.trainings import Pruned, pruned_of


@dataclass
class Shared:
    """What the runs so far have left for the next; a run reads it and puts its own in its place.

    Attributes:
        calibration: what a calibration has measured of the groups; it knows of no budget.
        pruned: the smallest network so far, before it was retrained: where the next training begins. Its budget must
            be below that one's.
        epochs: share of the recipe's epochs of pruning that the next run takes.
        header: of the run that left it.
    """

    calibration: State = field(default_factory=dict)
    pruned: Pruned | None = None
    epochs: float = 1.0
    header: Header | None = None

    def refuse_other(self, header: Header) -> None:
        """Refuse to be taken up by a run that differs in more than its budget.

        Raises:
            CheckpointError: what differs, by name.
        """
        if self.header is not None:
            self.header.refuse_other_run(sha256=header.sha256, options=header.options, but=_AMOUNTS)
            self.header.refuse_other_data(header.data)

    def write(self, path: Path) -> None:
        """Write all of it into a file, where a run has left something.

        Raises:
            OutputError: it cannot be written.
        """
        if self.header is not None:
            pruned = under("pruned", self.pruned.state()) if self.pruned is not None else {}
            write_checkpoint(path, self.header, {**under("calibration", self.calibration), **pruned})

    def read(self, path: Path) -> None:
        """Take up what ``write`` has written.

        Raises:
            CheckpointError: it cannot be read.
        """
        self.header, state = read_checkpoint(path)
        self.calibration, self.pruned = part(state, "calibration"), pruned_of(part(state, "pruned"))


_AMOUNTS = frozenset(f"--{kind}" for kind in COUNTED)
