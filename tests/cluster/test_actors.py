"""Real Ray actors: they find the optimum, die and come back, say what is wrong, and train a network."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.admm.splitting import Splitting
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.cluster.consensus import Consensus
from onnxadmm.cluster.rounds import Asked, Rounds
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DataError, OptionError, WorkerError
from onnxadmm.progress import Iteration, ProgressLike, Silent
from tests.cluster.test_consensus import SIZE, Vector, by_projected_gradient, quadratics, simplex
from tests.cluster.toys import Noted, Quadratics, Round

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
SHORT = oa.Recipe(epochs=3, retrain_epochs=2, batch_size=64)


pytestmark = pytest.mark.usefixtures("ray_here")


def solved(
    crew: RayCrew, parts: Quadratics, *, rounds: int, before: Callable[[int], None] = lambda number: None
) -> tuple[Vector, "Rounds[str, Round, Vector]"]:
    """Run consensus ADMM over a crew, projecting on the simplex; return ``Z``."""
    crew.settle(parts)
    course: Rounds[str, Round, Vector] = Rounds(crew)
    course.begin("solve")
    consensus, splitting = Consensus(np.zeros(SIZE), 1.0), Splitting(np.zeros(SIZE))

    def order(asked: Asked) -> Round:
        return Round(asked, consensus.mean, splitting.target.copy(), consensus.penalty(crew.count))

    for number in range(rounds):
        before(number)
        splitting.update(consensus.gather([heard.answer for heard in course.take(order)]), project=simplex)
    return splitting.z, course


@pytest.mark.slow
@pytest.mark.parametrize("machines", [2, 4])
def test_actors_reach_the_optimum_of_a_convex_problem(machines: int) -> None:
    a, b = quadratics(machines)
    with RayCrew(f"local:{machines}") as crew:
        found, _ = solved(crew, Quadratics(a, b), rounds=400)
    np.testing.assert_allclose(found, by_projected_gradient(a, b, simplex), atol=1e-6)


@pytest.mark.slow
def test_an_actor_that_is_killed_comes_back_and_the_optimum_is_the_same() -> None:
    a, b = quadratics(2)
    seen: dict[int, tuple[str, int]] = {}
    with RayCrew("local:2") as crew:

        def kill(number: int) -> None:
            """One machine before a round, the other in the midst of one."""
            if number == 20:
                seen[0] = crew.processes[0]
                os.kill(seen[0][1], signal.SIGKILL)
            if number == 40:
                seen[1] = crew.processes[1]
                threading.Timer(0.005, os.kill, (seen[1][1], signal.SIGKILL)).start()

        found, course = solved(crew, Quadratics(a, b, seconds=0.01), rounds=600, before=kill)
        assert course.lost == {0: 1, 1: 1}
        assert crew.processes[0] != seen[0]
        assert crew.processes[1] != seen[1]
    np.testing.assert_allclose(found, by_projected_gradient(a, b, simplex), atol=1e-6)


@pytest.mark.slow
def test_what_a_machine_says_is_wrong_is_said_by_the_driver() -> None:
    a, b = quadratics(1)
    with RayCrew("local:1") as crew:
        with pytest.raises(DataError, match="machine 1, --data: expected a file, found none; copy it"):
            solved(crew, Quadratics(a, b, broken="open"), rounds=1)
        with pytest.raises(DataError, match="machine 1, pictures: expected few that are damaged"):
            solved(crew, Quadratics(a, b, broken="take"), rounds=1)
    with RayCrew("local:1") as crew, pytest.raises(WorkerError, match="ZeroDivisionError: by nothing"):
        solved(crew, Quadratics(a, b, broken="unforeseen"), rounds=1)


def test_what_cannot_be_sent_is_refused() -> None:
    a, b = quadratics(1)
    with RayCrew("local:1") as crew, pytest.raises(DataError, match="what cannot be sent"):
        crew.settle(replace(Quadratics(a, b), a=(row for row in a)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_machine_opens_what_it_is_told_when_that_is_another_thing() -> None:
    with RayCrew("local:1") as crew:

        def said(opening: Noted, task: str) -> tuple[bool, list[str]]:
            other = crew.settle(opening)
            course: Rounds[str, str, list[str]] = Rounds(crew, known=not other)
            course.begin(task)
            return other, course.take(lambda asked: "end")[0].answer

        zeros = np.zeros(SIZE)
        assert said(Noted("a", zeros), "1") == (True, ["open a", "begin 1", "end"])
        assert said(Noted("a", zeros.copy()), "2") == (False, ["open a", "begin 1", "begin 2", "end"])
        last = ["open a", "begin 1", "begin 2", "end a", "open b", "begin 3", "end"]
        assert said(Noted("b", zeros), "3") == (True, last)
        assert said(Noted("b", zeros + 1), "4") == (True, [*last[:-1], "end b", "open b", "begin 4", "end"])


def weights_of(result: oa.Compressed) -> dict[str, NDArray[Any]]:
    return {name: value.const_value.numpy() for name, value in result.model.ir.graph.initializers.items()}


@pytest.mark.slow
def test_one_machine_is_a_training_without_any_to_the_bit(digits: DemoFiles, few_digits: Digits) -> None:
    def trained(cluster: str | None, local_steps: int = 8) -> dict[str, NDArray[Any]]:
        recipe = replace(SHORT, cluster=cluster, workers=1, local_steps=local_steps)
        budget = oa.Budget(params=0.3, connections=0.5)
        return weights_of(oa.compress(digits.model, data=few_digits, budget=budget, recipe=recipe, bench=False))

    alone, apart = trained(None), trained("local:1", local_steps=4)
    assert alone.keys() == apart.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(array, apart[name])


class Interrupted(Silent):
    """Ends a run after so many iterations."""

    def __init__(self, after: int) -> None:
        self._left = after

    def iteration(self, row: Iteration) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("after", [5, 25])
def test_a_driver_that_ends_goes_on_from_its_checkpoint_to_the_bit(
    after: int, digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    """In the midst of pruning, and of retraining: one machine, whose optimizer is the one that is kept."""

    def trained(out: Path, progress: ProgressLike = False, *, resume: bool = False) -> dict[str, NDArray[Any]]:
        options = {"data": few_digits, "budget": {"params": 0.3}, "bench": False, "progress": progress}
        recipe = replace(SHORT, cluster="local:1")
        return weights_of(oa.compress(digits.model, **options, recipe=recipe, out=out, resume=resume))  # type: ignore[arg-type]

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", Interrupted(after))
    for name, array in trained(tmp_path / "again", resume=True).items():
        np.testing.assert_array_equal(array, whole[name])


@pytest.mark.slow
def test_two_machines_train_a_network_and_say_what_that_took(digits: DemoFiles, few_digits: Digits) -> None:
    recipe = replace(SHORT, cluster="local:2")
    result = oa.compress(digits.model, data=few_digits, budget={"params": 0.3}, recipe=recipe, bench=False)
    assert result.after.parameters <= 0.3 * result.before.parameters
    assert result.after.heldout is not None
    assert result.after.heldout.value > 0.9
    (pruning, retraining) = (note for note in result.report.simplified if "2 machines" in note)
    assert pruning.startswith("Pruning took 24 rounds over 2 machines")
    assert retraining.startswith("Retraining took 4 rounds over 2 machines")


def test_more_machines_than_samples_in_a_batch_are_refused(digits: DemoFiles, few_digits: Digits) -> None:
    few = few_digits[0][:150], few_digits[1][:150]
    recipe = replace(SHORT, cluster="local:3", batch_size=2)
    with pytest.raises(OptionError, match="a share of every batch, and of the data, for each of 3 machines"):
        oa.compress(digits.model, data=few, budget={"params": 0.3}, recipe=recipe, bench=False)
