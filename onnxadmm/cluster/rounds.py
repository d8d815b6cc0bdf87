"""Rounds over machines: who is asked, who is waited for, and what becomes of those that are late or lost.

A round asks every machine that is idle. It waits for all of them, but for the last fifth no longer than a few times
what rounds usually take: these answer a later round (Zhang and Kwok, "Asynchronous distributed ADMM for consensus
optimization", 2014: a partial barrier with a bounded delay). A machine that is lost is opened again beside the rounds
of the others; its samples are dealt to them where that takes long. Where all are lost the round is asked anew. So what
a loss costs is the part of one machine in one round.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from onnxadmm.errors import OnnxAdmmError, WorkerError

Task = TypeVar("Task", contravariant=True)
Order = TypeVar("Order", contravariant=True)
Answer = TypeVar("Answer")
Said = TypeVar("Said", covariant=True)

#: Share of those asked that a round has to have heard, and how many times as long as usual, and how many seconds at
#: least, it waits for the others.
_QUORUM: Final = 0.8
_PATIENCE: Final = 3.0
_SECONDS: Final = 2.0
#: Rounds after which a late answer is worth nothing, and the samples of a machine that gave none are dealt to others.
DELAY: Final = 3
#: Rounds whose lengths say what is usual.
_REMEMBERED: Final = 9
#: Seconds that those which can begin a later task wait for the others.
_BEGINNING: Final = 60.0
#: Seconds between two tries to open a machine again, and at most between two looks at it.
PAUSE: Final = 0.5
#: Tries in vain, one after the other, after which a machine is given up.
TRIES: Final = 600


class LostError(Exception):
    """A machine, or the process on it, is gone; what it was doing has no result."""


class Crew(Protocol[Task, Order, Said]):
    """Machines that can be asked, wherever they are; a ticket stands for what will be answered."""

    @property
    def count(self) -> int:
        """How many there are, numbered from 0."""
        ...

    def prepare(self, machine: int, task: Task) -> object:
        """Have a machine open itself, where it is not, and begin a task; return a ticket."""
        ...

    def take(self, machine: int, order: Order) -> object:
        """Have a machine do a round; return a ticket."""
        ...

    def wait(self, tickets: Sequence[object], seconds: float) -> list[object]:
        """Return those of some tickets that are done, after so many seconds at most, and as soon as one is."""
        ...

    def result(self, ticket: object) -> Said | None:
        """Return what was answered; None where a machine was prepared.

        Raises:
            LostError: the machine is lost, or was since, and knows nothing of the task.
            OnnxAdmmError: what it said of what is wrong.
        """
        ...


@dataclass
class _Machine:
    """What is known of a machine.

    Attributes:
        ticket: of what it does; None: it is idle.
        asked: number of the round that it does; None where it is being prepared.
        heard: number of the last round that it was there for.
        fresh: it has just come, and knows nothing of the rounds before.
        later: when it is to be prepared again; None where it need not be.
        tries: how often that was in vain.
        gone: what it said when it was given up.
    """

    ticket: object | None = None
    asked: int | None = None
    heard: int = 0
    fresh: bool = True
    later: float | None = None
    tries: int = 0
    gone: OnnxAdmmError | None = None


@dataclass(frozen=True)
class Asked:
    """A round, as one machine is asked for it.

    Attributes:
        machine: its number.
        round: number of the round, from 1.
        fresh: it knows nothing of the rounds before.
        present: numbers of those among whom the samples are dealt.
    """

    machine: int
    round: int
    fresh: bool
    present: tuple[int, ...]


@dataclass(frozen=True)
class Heard(Generic[Answer]):
    """What a machine answered, and to which round."""

    machine: int
    round: int
    answer: Answer


@dataclass
class Rounds(Generic[Task, Order, Answer]):
    """Rounds over a crew, one task after the other.

    Attributes:
        crew: who is asked.
        lost: how often each machine was lost.
        late: answers that came to a later round.
        dropped: answers that came too late.
        tell: told a sentence when a machine is lost or back.
        known: the crew has worked on the same before, so that a machine that is not there has been lost since.
    """

    crew: Crew[Task, Order, Answer]
    tell: Callable[[str], None] = lambda sentence: None
    known: bool = False
    lost: dict[int, int] = field(default_factory=dict)
    late: int = 0
    dropped: int = 0
    _machines: list[_Machine] = field(init=False)
    _task: Task | None = field(init=False, default=None)
    _number: int = field(init=False, default=0)
    _usual: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self._machines = [_Machine() for _ in range(self.crew.count)]
        self._usual = deque(maxlen=_REMEMBERED)

    @property
    def number(self) -> int:
        """Number of the last round, from 1."""
        return self._number

    @property
    def present(self) -> tuple[int, ...]:
        """Machines among whom the samples are dealt: those that were there for one of the last rounds."""
        there = {number: machine for number, machine in enumerate(self._machines) if machine.gone is None}
        idle = {number for number, machine in there.items() if machine.ticket is None and machine.later is None}
        near = {number for number, machine in there.items() if machine.heard >= self._number - DELAY}
        return tuple(sorted(idle | near)) or tuple(there)

    def begin(self, task: Task) -> None:
        """Begin a task on all machines, and wait until all of them have; where they are known, for a minute.

        Raises:
            OnnxAdmmError: one of them cannot, and says why.
        """
        self._task = task
        self._usual.clear()
        for number, machine in enumerate(self._machines):
            if machine.gone is None:
                machine.fresh, machine.heard, machine.later = True, self._number, None
                machine.ticket, machine.asked = self.crew.prepare(number, task), None
        first, begin = self._number == 0 and not self.known, time.monotonic()
        while waiting := sum(machine.ticket is not None or machine.later is not None for machine in self._machines):
            there = sum(machine.gone is None for machine in self._machines) - waiting
            if not first and there and time.monotonic() - begin > _BEGINNING:
                break  # they join when they can
            self._hear([], strict=first)
            self._refuse_nobody()

    def take(self, order: Callable[[Asked], Order]) -> list[Heard[Answer]]:
        """Do a round: ask, wait, and return the answers in the order of the machines, late ones included.

        Args:
            order: makes what a machine is asked.

        Raises:
            WorkerError: all machines are given up.
            OnnxAdmmError: what one of them said of what is wrong.
        """
        self._number += 1
        answers: list[Heard[Answer]] = []
        begin = time.monotonic()
        asked = self._ask(order)
        while True:
            waited = time.monotonic() - begin
            busy = [number for number in asked if self._machines[number].asked == self._number]
            heard = sum(answer.round == self._number for answer in answers)
            if heard and (not busy or self._is_enough(heard, len(asked), waited)):
                break
            if not busy:  # all that were asked are lost, or none was there
                asked |= self._ask(order)
                self._refuse_nobody()
            self._hear(answers)
        self._usual.append(waited)
        return sorted(answers, key=lambda answer: (answer.machine, answer.round))

    def _is_enough(self, heard: int, asked: int, waited: float) -> bool:
        if not self._usual or heard < max(1, int(_QUORUM * asked)):
            return False
        return waited > max(_SECONDS, _PATIENCE * statistics.median(self._usual))

    def _ask(self, order: Callable[[Asked], Order]) -> set[int]:
        """Ask every machine that is idle; return their numbers."""
        present = self.present
        asked: set[int] = set()
        for number, machine in enumerate(self._machines):
            if machine.ticket is None and machine.later is None and machine.gone is None:
                words = Asked(number, self._number, machine.fresh, present)
                machine.ticket, machine.asked, machine.fresh = self.crew.take(number, order(words)), self._number, False
                asked.add(number)
        return asked

    def _hear(self, answers: list[Heard[Answer]], *, strict: bool = False) -> None:
        """Wait a moment for whatever comes.

        Args:
            answers: what is heard is added to them.
            strict: a machine that cannot begin ends the run.
        """
        now = time.monotonic()
        for number, machine in enumerate(self._machines):
            if machine.later is not None and machine.later <= now and self._task is not None:
                machine.ticket, machine.asked, machine.later = self.crew.prepare(number, self._task), None, None
        tickets = [machine.ticket for machine in self._machines if machine.ticket is not None]
        done = self.crew.wait(tickets, PAUSE)
        for number, machine in enumerate(self._machines):
            if any(machine.ticket is ticket for ticket in done):
                self._take_in(number, machine, answers, strict=strict)

    def _take_in(self, number: int, machine: _Machine, answers: list[Heard[Answer]], *, strict: bool) -> None:
        ticket, round_of, machine.ticket, machine.asked = machine.ticket, machine.asked, None, None
        try:
            answer = self.crew.result(ticket)
        except LostError as error:
            self._lose(number, machine, f"{error}", counts=round_of is not None)
            return
        except OnnxAdmmError as error:
            if strict or round_of is not None:
                raise
            machine.gone = error
            self.tell(f"Machine {number + 1} does not come back: {error}")
            return
        if round_of is None:
            if machine.tries:
                self.tell(f"Machine {number + 1} is back.")
            machine.tries, machine.fresh = 0, True
            return
        if answer is None:
            self._lose(number, machine, "it began anew", counts=True)
            return
        machine.heard = self._number
        if round_of < self._number - DELAY:
            self.dropped += 1
            machine.fresh = True
            return
        self.late += round_of < self._number
        answers.append(Heard(number, round_of, answer))

    def _lose(self, number: int, machine: _Machine, why: str, *, counts: bool) -> None:
        if counts or not machine.tries:
            self.lost[number] = self.lost.get(number, 0) + 1
            self.tell(f"Machine {number + 1} was lost ({why}); the others go on, and it is opened again.")
        machine.tries += 1
        machine.later = time.monotonic() + (PAUSE if machine.tries > 1 else 0.0)
        if machine.tries > TRIES:
            machine.gone = given_up(number, machine.tries)

    def _refuse_nobody(self) -> None:
        gone = [machine.gone for machine in self._machines if machine.gone is not None]
        if len(gone) == len(self._machines):
            raise gone[0]


def given_up(machine: int, tries: int) -> WorkerError:
    """Return why a machine is given up that was opened so often in vain."""
    return WorkerError(
        f"machine {machine + 1}",
        expected="a process that stays alive",
        found=f"{tries} in a row that did not",
        way_out="look at the machine, and go on with --resume",
    )
