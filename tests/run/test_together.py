"""What the driver makes of answers: their mean, late ones moved along, gates and losses of those in time."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.cluster.rounds import Asked, Heard
from onnxadmm.run.together import Answer, Job, Order, Together, packed, unpack

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
        self._starts: dict[int, FloatArray] = {}

    def begin(self, job: Job) -> None:
        self.begun.append(job)

    def take(self, order: Callable[[Asked], Order]) -> list[Heard[Answer]]:
        self.number += 1
        made = order(Asked(0, self.number, self.number == 1, (0, 1)))
        self.orders.append(made)
        self._starts[self.number] = made.weights
        return [
            Heard(machine, of, answer(self._starts[of] + np.float32(moved), loss=moved, machine=machine))
            for machine, of, moved in self.script[self.number - 1]
        ]


def answer(weights: FloatArray, *, loss: float, machine: int) -> Answer:
    optimizer = {"steps": np.array(loss)} if machine == 0 else {}
    return Answer(weights, loss=loss, gradient=1.0, moved={"gates": np.full(3, loss)}, optimizer=optimizer)


def team(script: Sequence[Sequence[tuple[int, int, float]]], local_steps: int = 8) -> tuple[Together, Any, Trainer]:
    job = Job(b"", frozenset(), NAMES, 1, 0.0, 0, None, None, {})
    rounds, trainer = Scripted(script), Trainer()
    return Together(rounds, job, trainer, local_steps=local_steps), rounds, trainer  # type: ignore[arg-type]


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
    assert told.startswith("Retraining took 1 round over 2 machines, 28 B sent and 96 B received")
    assert ("machines were lost 1 time" in told) == bool(lost)
