"""What a training step takes on other machines, as a model of what it is made of here.

On one machine the w processes that share a batch take G / w seconds each and add up their gradients one after the
other; beside them one thread asks the teacher and converts, and one thread for each core decodes::

    step(C, w) = k max(G/w + (w - 1) a + s,  l + r1,  rC/C,  (G + s + l + r1 + rC) / C)

with C cores, G seconds of one core for the gradient, a to add one process's, s between two gradients, l for the
teacher, r1 + rC for reading, and k such that the step is what was measured on the machine that measured.

On M machines each takes its share of every batch, so that G, l, r1 and rC are those of 1/M of the samples, and after H
steps all agree on one network. The machine that the driver runs on receives how far the others have moved and sends
them how far all have now, P bytes for each of them either way, which are two for each weight::

    time for one batch of the epoch = step(G/M, l/M, r1/M, rC/M) + 2 (M - 1) P / (H B)

with B bytes a second of its link in either direction.
"""

from dataclasses import dataclass, replace
from typing import Final

#: Directions that a network crosses the link in.
_DIRECTIONS: Final = 2
#: Bytes of a weight, and those that are sent of it.
_BYTES: Final = 4
_SENT: Final = 2


@dataclass(frozen=True)
class StepParts:
    """What a training step is made of, in seconds.

    Attributes:
        gradient: of one core for the loss and gradient of a batch, while all cores here work.
        adding: to add the gradient of one process.
        between: of one core between two gradients.
        teacher: of one core for the teacher's answers.
        converting: of one core for stored samples that become what the model reads, pictures that are decoded included
            only where they are not decoded anew.
        decoding: of all cores together for pictures.
    """

    gradient: float
    adding: float
    between: float
    teacher: float
    converting: float
    decoding: float

    def shared(self, machines: int) -> "StepParts":
        """Return the parts of a step on one of some machines, which has its share of the samples."""
        return replace(
            self,
            gradient=self.gradient / machines,
            teacher=self.teacher / machines,
            converting=self.converting / machines,
            decoding=self.decoding / machines,
        )

    def limits(self, cores: int, workers: int) -> dict[str, float]:
        """Return the least that a step takes by what limits it, in words.

        Args:
            cores: of the machine.
            workers: processes that share a batch.
        """
        work = self.gradient + self.between + self.teacher + self.converting + self.decoding
        return {
            "computing gradients": self.gradient / workers + (workers - 1) * self.adding + self.between,
            "one thread that asks the teacher and converts samples": self.teacher + self.converting,
            "decoding": self.decoding / cores,
            "all work together on its cores": work / cores,
        }

    def seconds(self, cores: int, workers: int) -> float:
        """Return what a step takes."""
        return max(self.limits(cores, workers).values())

    def limit(self, cores: int, workers: int) -> str:
        """Return in words what limits a step."""
        limits = self.limits(cores, workers)
        return max(limits, key=lambda name: limits[name])


@dataclass(frozen=True)
class Machines:
    """Where a run shall take place.

    Attributes:
        cores: of each machine.
        count: of machines.
        link: bytes a second in either direction.
        local_steps: between two exchanges.
    """

    cores: int
    count: int = 1
    link: float = 125e6
    local_steps: int = 8

    def step(self, measured: float, parts: StepParts, *, here: tuple[int, int], workers: int, exchanged: int) -> float:
        """Return the seconds for one batch of the epoch.

        Args:
            measured: what a step takes on the machine that measured.
            parts: what it is made of there.
            here: cores and processes there.
            workers: processes that share a batch on each machine.
            exchanged: bytes of all that trains.
        """
        alike = (self.cores, workers, self.count) == (*here, 1)
        there = parts.shared(self.count).seconds(self.cores, workers)
        step = measured if alike else measured * there / parts.seconds(*here)
        return step + self.exchange(exchanged) / self.local_steps

    def exchange(self, exchanged: int) -> float:
        """Return the seconds of one exchange between all machines."""
        return self.traffic(exchanged) / self.link

    def traffic(self, exchanged: int) -> int:
        """Return the bytes over the driver's link, both ways, in one exchange."""
        return _DIRECTIONS * (self.count - 1) * (exchanged // _BYTES) * _SENT
