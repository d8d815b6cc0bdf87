"""Errands over machines that fail, die and come back, on a clock that the test moves."""

import itertools
from dataclasses import dataclass, field

import pytest

from onnxadmm.cluster import errands as room
from onnxadmm.cluster.errands import Errands
from onnxadmm.cluster.rounds import LostError
from onnxadmm.errors import BudgetError, OnnxAdmmError, WorkerError
from tests.cluster.staged import Clockwork, Ticket


@dataclass
class Staged(Clockwork):
    """A crew to whom an errand is the number of seconds that it takes.

    Attributes:
        deaths: places among all that is asked at which a machine is lost.
        back: seconds until such a machine can be prepared; the first is without.
        refuses: errands that fail.
    """

    count: int
    deaths: set[int] = field(default_factory=set)
    back: float = 0.0
    never: bool = False
    refuses: dict[float, OnnxAdmmError] = field(default_factory=dict)
    asked: list[tuple[int, float]] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    before: set[int] = field(default_factory=set)

    def prepare(self, machine: int, task: str) -> object:
        assert task == "task"
        if self.never:
            return Ticket(self.now, LostError("out of memory"))
        self.ready.add(machine)
        late = self.back if machine in self.before else 0.0
        self.before.add(machine)
        return Ticket(self.now + late, None)

    def take(self, machine: int, order: float) -> object:
        assert machine in self.ready
        self.asked.append((machine, order))
        if len(self.asked) in self.deaths:
            self.ready.remove(machine)
            return Ticket(self.now + order / 2, LostError("killed"))
        return Ticket(self.now + order, self.refuses.get(order, f"{machine}:{order:g}"))

    def result(self, ticket: object) -> str | None:
        answer = super().result(ticket)
        assert answer is None or isinstance(answer, str)
        return answer


def done(crew: Staged, orders: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[int, str], list[str]]:
    """Do errands; return what they have come to, by number, and what was told."""
    monkeypatch.setattr(room.time, "monotonic", lambda: crew.now)
    monkeypatch.setattr(room.time, "sleep", lambda seconds: setattr(crew, "now", crew.now + seconds))
    heard: dict[int, str] = {}
    told: list[str] = []

    def hear(number: int, answer: str) -> None:
        assert number not in heard
        heard[number] = answer

    try:
        Errands(crew, orders, hear, told.append).run("task")
    except OnnxAdmmError as error:
        told.append(str(error))
    return heard, told


def test_each_machine_has_one_at_a_time_and_the_next_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Staged(2)
    heard, told = done(crew, [9, 2, 3, 1], monkeypatch)
    assert heard == {0: "0:9", 1: "1:2", 2: "1:3", 3: "1:1"}
    assert crew.now == 9
    assert not told


@pytest.mark.parametrize("place", [1, 2, 3, 4])
@pytest.mark.parametrize("back", [0.0, 5.0, 1e6])
def test_what_a_lost_machine_did_is_given_out_again_once(
    place: int, back: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Staged(2, deaths={place}, back=back)
    heard, told = done(crew, [9, 2, 3, 1], monkeypatch)
    assert heard.keys() == {0, 1, 2, 3}
    assert len(crew.asked) == 5
    assert [sum(order == each for _, order in crew.asked) for each in (9, 2, 3, 1)].count(2) == 1
    assert crew.now < 20  # nobody waits for a machine that does not come back
    (sentence,) = told
    assert "was lost (killed); what it was doing is given out again" in sentence


def test_an_errand_that_costs_three_machines_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, told = done(Staged(1, deaths={2, 3, 4}), [1, 2, 3], monkeypatch)
    assert heard == {0: "0:1"}
    assert len(told) == 3
    assert "expected the end of its work, found that it was lost (killed), the 3rd with the same work" in told[-1]


def test_the_first_that_failed_is_raised_when_those_beside_it_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(thing: str) -> BudgetError:
        return BudgetError(thing, expected="more", found="less", way_out="allow more")

    crew = Staged(3, refuses={3: refusal("--macs 3"), 1: refusal("--macs 1")})
    heard, told = done(crew, [3, 1, 9, 4], monkeypatch)
    assert heard == {2: "2:9"}
    assert [sentence.partition(":")[0] for sentence in told] == ["--macs 3"]
    assert crew.now == 9


def test_machines_that_never_begin_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, told = done(Staged(2, never=True), [1, 2], monkeypatch)
    assert not heard
    assert "expected a process that stays alive, found 601 in a row that did not" in told[-1]


def test_what_is_wrong_with_an_answer_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, counted = Staged(2), itertools.count()

    def full(number: int, answer: str) -> None:
        next(counted)
        raise WorkerError("the disk", expected="room", found="none", way_out="make some")

    with pytest.raises(WorkerError, match="the disk"):
        Errands(crew, [1.0, 2.0, 3.0], full, print).run("task")
    assert next(counted) == 1
