"""What the driver makes of answers: their mean, late ones moved along, gates and losses of those in time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.admm.schedule import Moment
from onnxadmm.cluster.consensus import Copy
from onnxadmm.cluster.halves import Halves, Rounding
from onnxadmm.cluster.rounds import Asked, Heard
from onnxadmm.run.together import Answer, Job, Order, Together, packed, placed, unpack

FloatArray = NDArray[np.float32]
NAMES = ("b", "a")


class Trainer:
    """Weights and an optimizer, and nothing that trains them."""

    def __init__(self) -> None:
        self.weights = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(1, np.float32)}
        self.steps = np.array(0.0)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"steps": self.steps}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.steps = np.array(state["steps"])


class Scripted:
    """Rounds whose answers are written down: for each round machine, round it answers, by how much it moves."""

    def __init__(self, script: Sequence[Sequence[tuple[int, int, float]]]) -> None:
        self.script, self.number = list(script), 0
        self.crew = SimpleNamespace(count=2)
        self.late = self.dropped = 0
        self.lost: dict[int, int] = {}
        self.orders: list[Order] = []
        self.begun: list[Job] = []
        self._start = np.zeros(5, np.float32)

    def begin(self, job: Job) -> None:
        self.begun.append(job)

    def take(self, order: Callable[[Asked], Order]) -> list[Heard[Answer]]:
        self.number += 1
        made = order(Asked(0, self.number, self.number == 1, (0, 1)))
        self.orders.append(made)
        self._start = placed(made.weights, self._start)
        return [
            Heard(machine, of, answer(self._moved(moved, made), loss=moved, machine=machine))
            for machine, of, moved in self.script[self.number - 1]
        ]

    def _moved(self, moved: float, order: Order) -> FloatArray | Halves:
        """As it is sent: a late answer says no more than how far it has come from where it began."""
        end = self._start + np.float32(moved)
        return Rounding(5, np.float32).halved(end, self._start) if order.halves else end


def answer(weights: FloatArray | Halves, *, loss: float, machine: int) -> Answer:
    optimizer = {"steps": np.array(loss)} if machine == 0 else {}
    return Answer(weights, loss=loss, gradient=1.0, moved={"gates": np.full(3, loss)}, optimizer=optimizer)


JOB = Job(b"", frozenset(), NAMES, 1, 0.0, 0, None, None, {})


def team(script: Sequence[Sequence[tuple[int, int, float]]], local_steps: int = 8) -> tuple[Together, Any, Trainer]:
    rounds, trainer = Scripted(script), Trainer()
    return Together(rounds, JOB, trainer, local_steps=local_steps), rounds, trainer  # type: ignore[arg-type]


class Mirrors:
    """Rounds over machines that keep where they are, as real ones do, and move at random.

    Attributes:
        busy: machines that no round asks, by its number; they answer the one before late.
        lost: machines that come back fresh in a round, and whose answer to the one before was lost with them.
    """

    def __init__(self, count: int, busy: dict[int, int] | None = None, lost: dict[int, int] | None = None) -> None:
        self.crew, self.number = SimpleNamespace(count=count), 0
        self.busy, self.lost = busy or {}, lost or {}
        self.orders: list[Order] = []
        self.starts: list[list[FloatArray]] = []
        self._has: dict[int, FloatArray] = {}
        self._late: list[Heard[Answer]] = []
        self._roundings = [Rounding(5, np.float32) for _ in range(count)]
        self._draw = np.random.default_rng(count)

    def begin(self, job: Job) -> None:
        self._has.clear()

    def take(self, order: Callable[[Asked], Order]) -> list[Heard[Answer]]:
        self.number += 1
        heard, self._late = self._late, []
        for machine, rounding in enumerate(self._roundings):
            if self.busy.get(self.number) == machine:
                continue
            if self.lost.get(self.number) == machine:
                del self._has[machine]
            fresh = machine not in self._has
            made = order(Asked(machine, self.number, fresh, tuple(range(self.crew.count))))
            assert not (fresh and isinstance(made.weights, Halves))
            start = placed(made.weights, self._has.get(machine, np.zeros(5, np.float32)))
            self._has[machine] = start
            self.orders.append(made)
            end = self._moved(start, made)
            told = rounding.halved(end, start) if made.halves else end
            self._told(made, placed(told, start))
            said = answer(told, loss=0.0, machine=machine)
            late = self.busy.get(self.number + 1) == machine
            if self.lost.get(self.number + 1) != machine:
                (self._late if late else heard).append(Heard(machine, self.number, said))
        asked = [order.asked.machine for order in self.orders if order.asked.round == self.number]
        self.starts.append([self._has[machine] for machine in asked])
        return heard

    def _moved(self, start: FloatArray, order: Order) -> FloatArray:
        return start + self._draw.normal(size=5).astype(np.float32) / 8

    def _told(self, order: Order, weights: FloatArray) -> None:
        pass


class Solvers(Mirrors):
    """Machines that each solve ``w A_i w / 2 - b_i w`` with the penalty of their copy."""

    def __init__(self, count: int, busy: dict[int, int] | None = None, lost: dict[int, int] | None = None) -> None:
        super().__init__(count, busy, lost)
        roots = self._draw.normal(size=(count, 5, 5))
        self.a = roots @ roots.transpose(0, 2, 1) / 5 + 0.1 * np.eye(5)
        self.b = 3 * self._draw.normal(size=(count, 5))
        self._copies = [Copy(5, np.float32) for _ in range(count)]

    def _moved(self, start: FloatArray, order: Order) -> FloatArray:
        place, penalty = order.asked.machine, max(order.penalty, 1e-3)
        copy = self._copies[place]
        if order.forgets:
            copy.forget()
            self._roundings[place].scale(0.0)
        copy.begin(start, order.penalty)
        towards = self.b[place] + penalty * (start.astype(np.float64) - copy.dual)
        return np.linalg.solve(self.a[place] + penalty * np.eye(5), towards).astype(np.float32)

    def _told(self, order: Order, weights: FloatArray) -> None:
        self._copies[order.asked.machine].end(weights)


def test_weights_are_sent_in_an_order_of_their_own_and_come_back_in_it() -> None:
    weights = {"a": np.arange(4, dtype=np.float32).reshape(2, 2), "b": np.array([9.0], np.float32)}
    flat = packed(weights, NAMES)
    assert flat.tolist() == [9, 0, 1, 2, 3]
    unpack(flat * 2, weights, NAMES)
    assert weights["a"].tolist() == [[0, 2], [4, 6]]
    assert weights["b"].tolist() == [18]


def test_the_trainer_holds_the_mean_and_the_optimizer_of_the_first_machine() -> None:
    together, rounds, trainer = team([[(0, 1, 1.0), (1, 1, 3.0)]])
    assert together.retrain(0, [0.1] * 5) == 2.0
    assert trainer.weights["a"].tolist() == [[2, 2], [2, 2]]
    assert trainer.steps == 1.0
    assert rounds.orders[0].rates == (0.1,) * 5
    assert rounds.orders[0].optimizer.keys() == {"steps"}


@pytest.mark.parametrize("machines", [1, 2, 4])
def test_machines_step_further_while_units_are_chosen_as_their_gradients_are_noisier(machines: int) -> None:
    rounds, placed_gates = Mirrors(machines), []
    together = Together(rounds, JOB, Trainer(), local_steps=2)  # type: ignore[arg-type]
    steps = SimpleNamespace(aims=dict, place=placed_gates.append)
    now = Moment((0.1, 0.2, 0.3), 10, gate_rho=1.0, connection_rho=2.0, budget=3.0, connection_power=1.0)
    together.prune(steps, now)  # type: ignore[arg-type]
    of_first = [order for order in rounds.orders if order.asked.machine == 0]
    assert [order.first for order in of_first] == [7, 8]
    rates = np.array([rate for order in of_first for rate in order.rates])
    np.testing.assert_allclose(rates, np.array([0.1, 0.2, 0.3]) * machines**0.5, rtol=1e-12)
    assert len(placed_gates) == 2
    together.retrain(10, [0.1])
    assert rounds.orders[-1].rates == (0.1,)


def test_a_late_answer_counts_from_where_the_mean_is_now_and_its_loss_does_not() -> None:
    together, _, trainer = team([[(0, 1, 4.0)], [(0, 2, 1.0), (1, 1, 3.0)]])
    together.retrain(0, [0.1])
    assert together.retrain(1, [0.1]) == 1.0
    assert trainer.weights["b"].tolist() == [4.0 + (1.0 + 3.0) / 2]


def test_steps_are_cut_into_rounds_of_nearly_equal_length() -> None:
    together, rounds, _ = team([[(0, number, 0.0)] for number in range(1, 4)], local_steps=8)
    together.retrain(40, [float(rate) for rate in range(19)])
    assert [len(order.rates) for order in rounds.orders] == [6, 6, 7]
    assert [order.first for order in rounds.orders] == [40, 46, 52]
    assert [rate for order in rounds.orders for rate in order.rates] == list(range(19))


@pytest.mark.parametrize("lost", [0, 1])
def test_what_the_machines_have_cost_is_said(lost: int) -> None:
    together, rounds, _ = team([[(0, 1, 0.0), (1, 1, 0.0)]])
    together.retrain(0, [0.1])
    rounds.lost = {1: lost} if lost else {}
    told = together.describe("Retraining")
    assert told.startswith("Retraining took 1 round over 2 machines, 28 B sent and 76 B received")
    assert ("machines were lost 1 time" in told) == bool(lost)


@pytest.mark.parametrize(("busy", "lost"), [({}, {}), ({4: 1, 8: 2, 11: 0}, {}), ({5: 0}, {6: 2, 13: 1})])
def test_all_machines_begin_every_round_at_the_same_bits_near_the_mean(
    busy: dict[int, int], lost: dict[int, int]
) -> None:
    rounds, trainer = Mirrors(3, busy, lost), Trainer()
    together = Together(rounds, JOB, trainer, local_steps=1)  # type: ignore[arg-type]
    for number in range(20):
        mean = packed(trainer.weights, NAMES)  # type: ignore[arg-type]
        together.retrain(number, [0.1])
        for start in rounds.starts[number]:
            np.testing.assert_array_equal(start.view(np.uint32), rounds.starts[number][0].view(np.uint32))
            np.testing.assert_allclose(start, mean, rtol=0, atol=2.0**-10 if number else 0.0)
    full = [order.asked for order in rounds.orders if not isinstance(order.weights, Halves)]
    behind = {(machine, number + 1) for number, machine in busy.items()}
    expected = {(machine, 1) for machine in range(3)} | behind | {(machine, number) for number, machine in lost.items()}
    assert {(asked.machine, asked.round) for asked in full} == expected


@pytest.mark.parametrize("machines", [2, 4])
def test_machines_that_exchange_halves_reach_the_optimum_of_the_sum(machines: int) -> None:
    """While the penalty is balanced, too: what rounding leaves over is scaled as the duals are."""
    rounds, trainer, pruning = Solvers(machines), Trainer(), SimpleNamespace()
    together = Together(rounds, replace(JOB, problem=pruning), trainer, local_steps=1)  # type: ignore[arg-type]
    for number in range(1500):
        together.retrain(number, [0.1])
    assert len({order.penalty for order in rounds.orders}) > 3
    found = packed(trainer.weights, NAMES)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, np.linalg.solve(rounds.a.sum(axis=0), rounds.b.sum(axis=0)), atol=2e-5)


@pytest.mark.parametrize(
    ("busy", "lost"), [({}, {}), ({}, {300: 1}), ({300: 2, 330: 0}, {}), ({200: 3}, {300: 1, 900: 2})]
)
def test_they_reach_it_when_one_of_them_was_lost_or_late(busy: dict[int, int], lost: dict[int, int]) -> None:
    """Where their duals stayed, they would end about 1 beside it; single precision ends within 2e-4."""
    rounds, trainer, pruning = Solvers(4, busy, lost), Trainer(), SimpleNamespace()
    together = Together(rounds, replace(JOB, problem=pruning), trainer, local_steps=1)  # type: ignore[arg-type]
    for number in range(1500):
        together.retrain(number, [0.1])
    found = packed(trainer.weights, NAMES)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, np.linalg.solve(rounds.a.sum(axis=0), rounds.b.sum(axis=0)), atol=1e-3)
    forgotten = {order.asked.round for order in rounds.orders if order.forgets}
    assert forgotten == {1, *busy, *(number + 1 for number in busy), *lost}


def test_nothing_draws_the_copies_together_while_a_network_is_retrained() -> None:
    rounds, trainer = Mirrors(2), Trainer()
    together = Together(rounds, JOB, trainer, local_steps=1)  # type: ignore[arg-type]
    for number in range(5):
        together.retrain(number, [0.1])
    assert {order.penalty for order in rounds.orders} == {0.0}


def test_several_machines_exchange_half_of_the_bytes() -> None:
    rounds = Mirrors(2)
    together = Together(rounds, JOB, Trainer(), local_steps=1)  # type: ignore[arg-type]
    together.retrain(0, [0.1])
    first = together.sent
    together.retrain(1, [0.1])
    assert first == 2 * (5 * 4 + 8)  # the weights as they are, and the optimizer's steps
    assert together.sent == first + 2 * 5 * 2


def test_one_machine_is_sent_the_mean_itself() -> None:
    rounds, trainer = Mirrors(1), Trainer()
    together = Together(rounds, JOB, trainer, local_steps=1)  # type: ignore[arg-type]
    for number in range(5):
        mean = packed(trainer.weights, NAMES)  # type: ignore[arg-type]
        together.retrain(number, [0.1])
        np.testing.assert_array_equal(rounds.starts[number][0], mean)
    assert not any(isinstance(order.weights, Halves) or order.halves for order in rounds.orders)


def test_the_first_round_of_a_driver_that_goes_on_begins_at_the_mean_to_the_bit() -> None:
    """Its trainer holds what it had saved only by then."""
    rounds, trainer = Mirrors(2), Trainer()
    together = Together(rounds, JOB, trainer, local_steps=1)  # type: ignore[arg-type]
    trainer.weights["a"][:] = 1 / 3
    together.retrain(0, [0.1])
    for start in rounds.starts[0]:
        np.testing.assert_array_equal(start, np.array([0, 1 / 3, 1 / 3, 1 / 3, 1 / 3], np.float32))
