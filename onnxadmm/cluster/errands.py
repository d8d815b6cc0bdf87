"""Errands: pieces of work that do not wait for each other, one at a time for each machine.

What a machine was doing when it was lost is given out again, and the machine is opened again beside the others.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from onnxadmm.cluster.rounds import PAUSE, TRIES, Crew, LostError, given_up
from onnxadmm.errors import OnnxAdmmError, WorkerError

Task = TypeVar("Task", contravariant=True)
Order = TypeVar("Order", contravariant=True)
Answer = TypeVar("Answer")

#: Machines that may be lost with one errand, after which that is taken to be the cause.
_LOST: Final = 3


@dataclass
class _Machine:
    """What is known of a machine.

    Attributes:
        ticket: of what it does; None: it is idle.
        errand: number of what it does; None where it is being prepared.
        ready: it can be given one.
        later: when it may be prepared again.
        tries: how often that was in vain.
        gone: it is given up.
    """

    ticket: object | None = None
    errand: int | None = None
    ready: bool = False
    later: float = 0.0
    tries: int = 0
    gone: bool = False


@dataclass
class Errands(Generic[Task, Order, Answer]):
    """Errands for a crew.

    Attributes:
        crew: who does them.
        orders: what each is.
        on_done: told the number of an errand, from 0, and what it has come to.
        tell: told a sentence when a machine is lost.
    """

    crew: Crew[Task, Order, Answer]
    orders: Sequence[Order]
    on_done: Callable[[int, Answer], None]
    tell: Callable[[str], None]
    _machines: list[_Machine] = field(init=False)
    _waiting: deque[int] = field(init=False)
    _failed: dict[int, OnnxAdmmError] = field(init=False, default_factory=dict)
    _lost: Counter[int] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self._machines = [_Machine() for _ in range(self.crew.count)]
        self._waiting = deque(range(len(self.orders)))

    def run(self, task: Task) -> None:
        """Give them out, and wait until all are done.

        Args:
            task: what every machine begins before its first.

        Raises:
            OnnxAdmmError: the first of the errands, in their order, that failed: those that were under way are done.
            WorkerError: no machine is left, or an errand has cost several.
        """
        while any(each.errand is not None for each in self._machines) or (self._waiting and not self._failed):
            if not self._failed:
                self._ask(task)
            tickets = [machine.ticket for machine in self._machines if machine.ticket is not None]
            if not tickets:
                time.sleep(PAUSE)
            done = self.crew.wait(tickets, PAUSE)
            for number, machine in enumerate(self._machines):
                if any(machine.ticket is ticket for ticket in done):
                    self._take_in(number, machine)
        if self._failed:
            raise self._failed[min(self._failed)]

    def _ask(self, task: Task) -> None:
        """Give an errand to every machine that can be given one, and prepare the others."""
        for number, machine in enumerate(self._machines):
            if machine.ticket is not None or machine.gone:
                continue
            if not machine.ready and machine.later <= time.monotonic():
                machine.ticket = self.crew.prepare(number, task)
            elif machine.ready and self._waiting:
                machine.errand = self._waiting.popleft()
                machine.ticket = self.crew.take(number, self.orders[machine.errand])

    def _take_in(self, number: int, machine: _Machine) -> None:
        ticket, errand, machine.ticket, machine.errand = machine.ticket, machine.errand, None, None
        try:
            answer = self.crew.result(ticket)
        except LostError as error:
            self._lose(number, machine, errand, f"{error}")
        except OnnxAdmmError as error:
            if errand is None:
                raise
            self._failed[errand] = error
        else:
            if errand is None:
                machine.ready, machine.tries = True, 0
            elif answer is None:
                self._lose(number, machine, errand, "it began anew")
            else:
                self.on_done(errand, answer)

    def _lose(self, number: int, machine: _Machine, errand: int | None, why: str) -> None:
        machine.ready = False
        machine.tries += 1
        machine.later = time.monotonic() + (PAUSE if machine.tries > 1 else 0.0)
        machine.gone = machine.tries > TRIES
        if all(each.gone for each in self._machines):
            raise given_up(number, machine.tries)
        if errand is None:
            return
        self._lost[errand] += 1
        if self._lost[errand] < _LOST:
            self._waiting.appendleft(errand)
            self.tell(f"Machine {number + 1} was lost ({why}); what it was doing is given out again.")
            return
        self._failed[errand] = WorkerError(
            f"machine {number + 1}",
            expected="the end of its work",
            found=f"that it was lost ({why}), the {_LOST}rd with the same work",
            way_out="look at its memory, or leave --cluster out",
        )
