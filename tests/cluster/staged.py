"""Crews on a clock that the test moves: what each machine is asked is done at a time that is known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Ticket:
    """Done at a time, with an answer or an error."""

    at: float
    answer: object


@dataclass(kw_only=True)
class Clockwork:
    """The half of a crew that waits.

    Attributes:
        now: seconds on its clock.
    """

    now: float = 0.0

    def wait(self, tickets: Sequence[object], seconds: float) -> list[object]:
        first = min((ticket.at for ticket in tickets if isinstance(ticket, Ticket)), default=self.now + seconds)
        self.now = max(self.now, min(first, self.now + seconds))
        return [ticket for ticket in tickets if isinstance(ticket, Ticket) and ticket.at <= self.now]

    def result(self, ticket: object) -> object:
        assert isinstance(ticket, Ticket)
        if isinstance(ticket.answer, Exception):
            raise ticket.answer
        return ticket.answer
