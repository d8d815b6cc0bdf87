"""What a training step takes on other machines, as a model of what it is made of here.

On one machine the w processes that share a batch take G / w seconds each and add up their gradients one after the
other; beside them one thread converts samples and has b threads answer as the teacher, and one thread for each core
decodes::

    step(C, w, b) = k max(G/w + (w - 1) a + s,  l/b + r1,  rC/C,  (G + s + l + r1 + rC) / C)

with C cores, G seconds of one core for the gradient, a to add one process's, s between two gradients, l for the
teacher, r1 + rC for reading, and k such that the step is what was measured on the machine that measured.

On M machines each takes its share of every batch, so that G, l, r1 and rC are those of 1/M of the samples, and after H
steps all agree on one network. The machine that the driver runs on receives how far the others have moved and sends
them how far all have now, P bytes for each of them either way, which are two for each weight::

    time for one batch of the epoch = step(G/M, l/M, r1/M, rC/M) + 2 (M - 1) P / (H B)

with B bytes a second of its link in either direction.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

#: Directions that a network crosses the link in.
_DIRECTIONS: Final = 2
#: Bytes of a weight, and those that are sent of it.
_BYTES: Final = 4
_SENT: Final = 2


class Hands(NamedTuple):
    """Who takes a step on one machine: its cores, the processes that share a batch, the threads that evaluate."""

    cores: int
    workers: int
    beside: int


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

    def limits(self, hands: Hands) -> dict[str, float]:
        """Return the least that a step takes by what limits it, in words."""
        work = self.gradient + self.between + self.teacher + self.converting + self.decoding
        return {
            "computing gradients": self.gradient / hands.workers + (hands.workers - 1) * self.adding + self.between,
            "asking the teacher and converting samples": self.teacher / hands.beside + self.converting,
            "decoding": self.decoding / hands.cores,
            "all work together on its cores": work / hands.cores,
        }

    def seconds(self, hands: Hands) -> float:
        """Return what a step takes."""
        return max(self.limits(hands).values())

    def limit(self, hands: Hands) -> str:
        """Return in words what limits a step."""
        limits = self.limits(hands)
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

    def step(self, measured: float, parts: StepParts, *, here: Hands, there: Hands, exchanged: int) -> float:
        """Return the seconds for one batch of the epoch.

        Args:
            measured: what a step takes on the machine that measured.
            parts: what it is made of there.
            here: who takes it there.
            there: who takes it on each machine.
            exchanged: bytes of all that trains.
        """
        step = measured
        if (there, self.count) != (here, 1):
            step *= parts.shared(self.count).seconds(there) / parts.seconds(here)
        return step + self.exchange(exchanged) / self.local_steps

    def exchange(self, exchanged: int) -> float:
        """Return the seconds of one exchange between all machines."""
        return self.traffic(exchanged) / self.link

    def traffic(self, exchanged: int) -> int:
        """Return the bytes over the driver's link, both ways, in one exchange."""
        return _DIRECTIONS * (self.count - 1) * (exchanged // _BYTES) * _SENT
