"""What runs with the same model, data and options, but other budgets, pass on to each other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.state import State, part, under
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import COUNTED
from onnxadmm.rewrite.shrink import put_back
from onnxadmm.run.checkpoint import Header, read_checkpoint, write_checkpoint
from onnxadmm.run.forecast import Paces
from onnxadmm.run.journal import Journal
from onnxadmm.run.measure import Quality
from onnxadmm.run.trainings import Pruned, Training, pruned_of
from onnxadmm.train.metrics import Metrics
from onnxadmm.train.preflight.preflight import Preflight
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units

#: What figures of the original are kept under.
HELD_OUT: Final = "held out"
TEST: Final = "test"


@dataclass
class Reading:
    """Data that were read, the teacher with its answers so far, and what was found out with them.

    Attributes:
        sources: of the data and the test data.
        options: what decides how they are read, as text by name.
        training: its journal and recipe are those of the run that read them.
        digest: of the data.
        original: how well the original does on all of some data, by what they are.
        notes, warnings: what was said of the data, and of the original on them.
        preflight: what trying a step found; None where none was tried.
        paces: how fast the trainings are; None where that was not measured.
        looking: seconds that the first look at the original took, and the digest of the data.
    """

    sources: tuple[object, object]
    options: Mapping[str, str]
    training: Training
    digest: str
    original: dict[str, Metrics]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    preflight: Preflight | None = None
    paces: Paces | None = None
    looking: float = 0.0

    def is_of(self, sources: tuple[object, object], options: Mapping[str, str]) -> bool:
        """Whether a run with these sources and options would read and find the same."""
        same = all(one is other or _one_path(one, other) for one, other in zip(self.sources, sources, strict=True))
        return same and self.options == options

    def quality(self, name: str, original: Model, result: Model) -> Quality:
        """Measure both models on all held-out or test data, the original where no run has done so before."""
        data = self.training.held_out if name == HELD_OUT else self.training.test
        if data is None:
            return Quality(None, None)
        if name not in self.original:
            self.original[name] = self.training.metrics(original, data)
        return Quality(self.original[name], self.training.metrics(result, data))

    def told_to(self, journal: Journal) -> Training:
        """Return the training of another run, whose journal is told what was said before."""
        for sentence in self.notes:
            journal.say(sentence)
        for sentence in self.warnings:
            journal.warn(sentence)
        return replace(self.training, journal=journal)


@dataclass
class Shared:
    """What the runs so far have left for the next; a run reads it and puts its own in its place.

    Attributes:
        calibration: what a calibration has measured of the groups; it knows of no budget.
        pruned: the smallest network so far, retrained: where the next training begins. Its budget must be below that
            one's.
        epochs, retrain_epochs: shares of the recipe's epochs of pruning and retraining that the next run takes.
        command: what makes all runs again, for the reports of those that go on from another one's network: the command
            of such a run alone makes another one. It is not written.
        header: of the run that left it.
        reading: of this process; it is not written.
        crew: machines that train all runs, opened by whoever has these runs; None: a run opens its own, if any. It is
            not written.
    """

    calibration: State = field(default_factory=dict)
    pruned: Pruned | None = None
    epochs: float = 1.0
    retrain_epochs: float = 1.0
    command: str | None = None
    header: Header | None = None
    reading: Reading | None = None
    crew: RayCrew | None = None

    def refuse_other(self, header: Header) -> None:
        """Refuse to be taken up by a run that differs in more than its budget.

        Raises:
            CheckpointError: what differs, by name.
        """
        if self.header is not None:
            self.header.refuse_other_run(sha256=header.sha256, options=header.options, but=_AMOUNTS)
            self.header.refuse_other_data(header.data)

    def expected_macs(self, problem: Problem, units: Units) -> float:
        """Return the multiply-accumulates of a sample that a network under a smaller budget is expected to take.

        From the original to the network before, they fell with some power of the cost: they go on falling so.
        """
        macs, whole = Cost(units, "macs"), problem.dense
        if self.pruned is None:
            return macs.dense()
        before, kept = problem.cost.total(self.pruned.keep), max(1.0, macs.total(self.pruned.keep))
        if not 0 < before < whole:
            return kept
        power = math.log(kept / max(1.0, macs.dense())) / math.log(before / whole)
        return float(kept * min(1.0, problem.budget / before) ** power)

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


def grown(pruned: Pruned, small: Model, whole: Model, units: Units) -> Pruned:
    """Return what was pruned with the weights of the retrained small network where they were in the whole one.

    Args:
        small: as retrained.
        whole: the model that was pruned; weights that are gone stay as they were pruned.
        units: its units.
    """
    weights = dict(pruned.weights)
    before = constants_by_name(whole)
    for name, value in constants_by_name(small).items():
        if name not in before:
            continue
        array = weights[name] if name in weights else constant(before[name])
        trained, positions = constant(value), units.positions(name, pruned.keep)
        if array is None or trained is None or trained.dtype != np.float32:
            continue
        cuts = positions is not None and any(axis is not None for axis in positions)
        weights[name] = put_back(array, trained, positions) if cuts and positions is not None else trained
    return replace(pruned, weights=weights)


def without_amounts(options: Mapping[str, str]) -> dict[str, str]:
    """Return options of a run, as text by name, but for its budget."""
    return {name: text for name, text in options.items() if name not in _AMOUNTS}


def _one_path(one: object, other: object) -> bool:
    return isinstance(one, (str, Path)) and isinstance(other, (str, Path)) and Path(one) == Path(other)


_AMOUNTS = frozenset(f"--{kind}" for kind in COUNTED)
