"""Rounds over machines that are late, die and come back, on a clock that the test moves."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from onnxadmm.cluster import rounds as room
from onnxadmm.cluster.rounds import DELAY, Asked, LostError, Rounds
from onnxadmm.errors import DataError, OnnxAdmmError
from tests.cluster.staged import Clockwork, Ticket


@dataclass
class Staged(Clockwork):
    """A crew whose machines take as long, and die when, they are told.

    Attributes:
        seconds: what a round takes each machine.
        deaths: machine and number of the round in which it dies.
        opening: seconds until one that has died is prepared.
    """

    seconds: list[float]
    deaths: set[tuple[int, int]] = field(default_factory=set)
    opening: float = 0.0
    refuses: dict[int, OnnxAdmmError] = field(default_factory=dict)
    slow: dict[tuple[int, int], float] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    died: set[int] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self.seconds)

    def prepare(self, machine: int, task: object) -> object:
        if machine not in self.died:
            return Ticket(self.now, None)
        return Ticket(self.now + self.opening, self.refuses.get(machine))

    def take(self, machine: int, order: Asked) -> object:
        self.asked.append(order)
        if (machine, order.round) in self.deaths:
            self.deaths.remove((machine, order.round))
            self.died.add(machine)
            return Ticket(self.now + self.seconds[machine] / 2, LostError("killed"))
        return Ticket(
            self.now + self.slow.get((machine, order.round), self.seconds[machine]), f"{machine}:{order.round}"
        )


Stage = Callable[..., tuple[Staged, "Rounds[object, Asked, object]", list[str]]]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Make rounds over a staged crew, begun."""

    def make(*seconds: float, **more: object) -> tuple[Staged, "Rounds[object, Asked, object]", list[str]]:
        crew, told = Staged(list(seconds), **more), []  # type: ignore[arg-type]
        monkeypatch.setattr(room.time, "monotonic", lambda: crew.now)
        made: Rounds[object, Asked, object] = Rounds(crew, tell=told.append)
        made.begin("task")
        return crew, made, told

    return make


def answers(rounds: "Rounds[object, Asked, object]") -> list[object]:
    return [heard.answer for heard in rounds.take(lambda asked: asked)]


def test_a_round_has_the_answers_of_all_in_their_order(stage: Stage) -> None:
    crew, rounds, told = stage(3.0, 1.0, 2.0)
    assert answers(rounds) == ["0:1", "1:1", "2:1"]
    assert answers(rounds) == ["0:2", "1:2", "2:2"]
    assert crew.now == 6.0
    assert not told
    assert [order.fresh for order in crew.asked] == [True] * 3 + [False] * 3
    assert {order.present for order in crew.asked} == {(0, 1, 2)}


def test_a_slow_machine_does_not_hold_the_others_and_answers_a_later_round(stage: Stage) -> None:
    crew, rounds, _ = stage(1.0, 1.0, slow={(1, 3): 5.5})
    assert [answers(rounds) for _ in range(2)] == [["0:1", "1:1"], ["0:2", "1:2"]]
    assert answers(rounds) == ["0:3"]
    assert 5.0 <= crew.now < 6.0  # three times as long as usual, and no longer
    assert [answers(rounds) for _ in range(3)] == [["0:4"], ["0:5", "1:3"], ["0:6", "1:6"]]
    assert rounds.late == 1


def test_an_answer_that_is_too_late_is_dropped_and_its_samples_were_dealt_to_the_others(stage: Stage) -> None:
    crew, rounds, _ = stage(1.0, 1.0, 1.0, slow={(2, 2): 30.0})
    found = [answers(rounds) for _ in range(30)]
    assert found[0] == ["0:1", "1:1", "2:1"]
    assert not any("2:2" in each for each in found)
    assert rounds.dropped == 1
    assert rounds.late == 0
    alone = [order.round for order in crew.asked if order.present == (0, 1)]
    assert alone[0] == 2 + DELAY
    back = next(order for order in crew.asked if order.machine == 2 and order.round > 2)
    assert back.fresh
    assert back.present == (0, 1, 2)


def test_a_machine_that_dies_costs_its_part_of_one_round(stage: Stage) -> None:
    crew, rounds, told = stage(1.0, 1.0, deaths={(1, 2)})
    assert [answers(rounds) for _ in range(3)] == [["0:1", "1:1"], ["0:2"], ["0:3", "1:3"]]
    assert crew.now == 3.0
    assert rounds.lost == {1: 1}
    assert [order.fresh for order in crew.asked if order.machine == 1] == [True, False, True]
    assert "lost" in told[0]


def test_the_only_machine_takes_the_round_again(stage: Stage) -> None:
    crew, rounds, _ = stage(1.0, deaths={(0, 2)}, opening=4.0)
    assert [answers(rounds) for _ in range(3)] == [["0:1"], ["0:2"], ["0:3"]]
    assert crew.now == pytest.approx(1.0 + 0.5 + 4.0 + 1.0 + 1.0)


def test_all_machines_may_die_at_once(stage: Stage) -> None:
    _, rounds, _ = stage(1.0, 1.0, deaths={(0, 1), (1, 1)}, opening=2.0)
    first = answers(rounds)
    assert first in (["0:1", "1:1"], ["0:1"], ["1:1"])
    assert answers(rounds)


def test_samples_of_a_machine_that_stays_away_are_dealt_to_the_others(stage: Stage) -> None:
    crew, rounds, _ = stage(1.0, 1.0, 1.0, deaths={(1, 2)}, opening=6.5)
    found = [answers(rounds) for _ in range(12)]
    assert found[-1] == ["0:12", "1:12", "2:12"]
    present = {order.round: order.present for order in crew.asked}
    assert present[2] == (0, 1, 2)
    assert present[2 + DELAY] == (0, 2)
    assert present[12] == (0, 1, 2)


def test_a_machine_that_refuses_to_come_back_is_left_out(stage: Stage) -> None:
    error = DataError("--data", expected="a file", found="none", way_out="copy it")
    crew, rounds, told = stage(1.0, 1.0, deaths={(1, 1)}, refuses={1: error})
    assert [answers(rounds) for _ in range(3)][-1] == ["0:3"]
    assert "does not come back" in told[-1]
    assert crew.asked[-1].present == (0,)


def test_the_last_machine_that_refuses_ends_the_run_with_its_reason(stage: Stage) -> None:
    error = DataError("--data", expected="a file", found="none", way_out="copy it")
    _, rounds, _ = stage(1.0, deaths={(0, 1)}, refuses={0: error})
    with pytest.raises(DataError, match="copy it"):
        answers(rounds)


def test_a_later_task_does_not_wait_for_a_machine_that_stays_away(stage: Stage) -> None:
    crew, rounds, _ = stage(1.0, 1.0, deaths={(1, 1)}, opening=200.0)
    assert answers(rounds) == ["0:1"]
    rounds.begin("another task")
    assert 60.0 < crew.now < 70.0
    assert answers(rounds) == ["0:2"]
    assert crew.asked[-1].fresh


@pytest.mark.parametrize("known", [True, False])
def test_a_crew_that_has_worked_on_the_same_does_not_wait_for_a_machine_that_is_lost(known: bool, stage: Stage) -> None:
    crew, rounds, told = stage(1.0, 1.0, deaths={(1, 1)}, opening=200.0)
    assert answers(rounds) == ["0:1"]
    again: Rounds[object, Asked, object] = Rounds(crew, tell=told.append, known=known)
    again.begin("the task of another run")
    assert 60.0 < crew.now < 70.0 if known else crew.now > 200.0
    assert answers(again) == (["0:1"] if known else ["0:1", "1:1"])
