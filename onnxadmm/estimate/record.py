"""What an estimate says: seconds, memory, disk and cost of every stage, and the command that is meant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_HOUR: Final = 3600.0


@dataclass(frozen=True)
class StageEstimate:
    """What one stage of a run takes.

    Attributes:
        name: as in the report of a run; before the first stands the start of Python, behind the last what is written.
        seconds: by the clock.
        epochs: passes over the data; 0 where nothing trains.
        memory_bytes: most that all processes of a machine have together; 0 where it is not known.
        disk_bytes: of files that the stage makes.
        cost: price of all cores for so long; None without a price.

    Examples:
        ```python
        stage = oa.StageEstimate("retrain", seconds=7200.0, epochs=3, memory_bytes=2 << 30, disk_bytes=0, cost=1.6)
        ```
    """

    name: str
    seconds: float
    epochs: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    cost: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run of ``compress`` takes.

    Attributes:
        stages: in the order in which they come.
        command: the command line of that run, its epochs included.
        samples: of the data, held-out ones included.
        epochs, retrain_epochs: passes over the data in the two trainings; 0 where nothing trains.
        batches: of an epoch.
        cores, machines: that it is estimated for.
        workers: processes that share a batch in the two trainings, on each machine.
        rates: by name what was measured here, a second: ``"samples read"``, ``"samples evaluated"``, ``"samples trained
            while pruning"`` and ``"... while retraining"``, and ``"samples answered"`` by the teacher; where it is told
            of other machines also ``"speed-up of all cores"``, a factor.
        traffic_bytes: over the link of the machine that steers the others, both ways; 0 on one machine.
        notes: sentences on what was extrapolated, and what limits the run.

    Examples:
        ```python
        recipe = oa.Recipe(distillation=1, epochs=2, retrain_epochs=3, batch_size=32)  # no labels
        found = oa.estimate("model.onnx", data=images, budget={"macs": 0.5}, recipe=recipe, hours=1, bench=False)
        print(found.command, found.seconds / 3600, found.memory_bytes, found.disk_bytes)
        ```
    """

    stages: tuple[StageEstimate, ...]
    command: str
    samples: int
    epochs: int
    retrain_epochs: int
    batches: int
    cores: int
    machines: int
    workers: tuple[int, ...]
    rates: Mapping[str, float]
    traffic_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all stages together."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory_bytes(self) -> int:
        """The most that a stage has."""
        return max((stage.memory_bytes for stage in self.stages), default=0)

    @property
    def disk_bytes(self) -> int:
        """Of all files that there are at a time, at most."""
        trained = {stage.name: stage.disk_bytes for stage in self.stages if stage.epochs}
        others = sum(stage.disk_bytes for stage in self.stages if not stage.epochs)
        return others + max(trained.values(), default=0)

    @property
    def cost(self) -> float | None:
        """Of all stages together; None without a price."""
        costs = [stage.cost for stage in self.stages if stage.cost is not None]
        return sum(costs) if costs else None
