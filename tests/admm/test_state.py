"""A run that goes on from a saved state ends as one that was never interrupted, to the bit."""

from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.admm.settings import Settings, paper_settings
from onnxadmm.admm.solver import Record, Solution, solve
from onnxadmm.admm.state import State
from onnxadmm.errors import CheckpointError
from tests.admm.tiny import TinyData, TinyTrainer, tiny_problem

NAMES = ("first.weight", "second.weight")
#: 16 steps in an epoch and 3 iterations: some end within an epoch, and not all have the same number of steps.
QUICK = Settings(epochs=4, iterations_per_epoch=3, learning_rate=1e-2)
PAPER = replace(paper_settings(epochs=4), gate_step=5e-3, learning_rate=1e-2, iterations_per_epoch=3)
METHODS = [
    pytest.param(QUICK, id="admm"),
    pytest.param(replace(QUICK, mode="joint"), id="joint"),
    pytest.param(PAPER, id="paper"),
    pytest.param(replace(PAPER, mode="joint"), id="paper-joint"),
]
Saved = tuple[State, State]


class StoppedError(Exception):
    pass


def trainer_state(trainer: TinyTrainer) -> dict[str, np.ndarray]:
    """The optimizer's state, which is not the solver's business."""
    moments = {f"mean {name}": array for name, array in trainer._mean.items()}
    moments |= {f"square {name}": array for name, array in trainer._square.items()}
    return moments


def run(
    settings: Settings, *, saved: Saved | None = None, stop_after: int | None = None, watched: bool = True
) -> tuple[TinyTrainer, Solution, list[Saved]]:
    """Run, from a saved state if there is one; every state is copied. ``stop_after`` ends it by an exception."""
    trainer, data, states = TinyTrainer(), TinyData(), []

    def keep(state: State) -> None:
        copied = {name: array.copy() for name, array in state.items()}
        own = {name: array.copy() for name, array in trainer_state(trainer).items()}
        states.append((copied, own | {"updates": np.array(trainer.updates)}))

    def look(record: Record) -> None:
        if stop_after is not None and record.iteration > stop_after:
            raise StoppedError

    if saved is not None:
        for name, array in trainer_state(trainer).items():
            array[...] = saved[1][name]
        trainer.updates = int(saved[1]["updates"])
    try:
        solution = solve(
            trainer,
            tiny_problem(budget=54.0, connections=NAMES, share=0.5),
            batches=data,
            steps_per_epoch=data.steps,
            settings=settings,
            on_iteration=look if watched else None,
            on_state=keep,
            resume=None if saved is None else saved[0],
        )
    except StoppedError:
        assert saved is None
        return trainer, Solution(np.zeros(0, np.bool_), {}, ()), states
    return trainer, solution, states


def assert_same(one: tuple[TinyTrainer, Solution], two: tuple[TinyTrainer, Solution]) -> None:
    assert one[1].history == two[1].history
    np.testing.assert_array_equal(one[1].keep, two[1].keep)
    for name, mask in one[1].zeros.items():
        np.testing.assert_array_equal(mask, two[1].zeros[name])
    for name, array in one[0].weights.items():
        np.testing.assert_array_equal(array, two[0].weights[name])


@pytest.mark.parametrize("settings", METHODS)
def test_resuming_after_any_iteration_changes_nothing(settings: Settings) -> None:
    *whole, states = run(settings)
    assert len(states) == 12
    for saved in states:
        trainer, solution, _ = run(settings, saved=saved)
        assert_same((whole[0], whole[1]), (trainer, solution))


def test_a_run_that_broke_off_within_an_iteration_left_the_state_before_it() -> None:
    *whole, expected = run(QUICK)
    _, _, states = run(QUICK, stop_after=4)
    assert len(states) == 4
    for name, array in expected[3][0].items():
        np.testing.assert_array_equal(array, states[3][0][name])
    trainer, solution, _ = run(QUICK, saved=states[3])
    assert_same((whole[0], whole[1]), (trainer, solution))


@pytest.mark.parametrize("settings", METHODS)
def test_every_number_of_the_state_counts(settings: Settings) -> None:
    """Each array is needed: a run that resumes with one of them changed ends elsewhere."""
    *whole, states = run(settings, watched=False)
    state, own = states[4]
    for name, array in state.items():
        if name in ("best_loss", "history") or (name, settings.method) == ("neuron_rho", "admm"):
            continue  # decides only when a run has diverged; is part of the result; rescales a dual that is not there
        changed = array + 1.0 if array.ndim == 0 else array + np.linspace(0.3, 0.6, array.size).reshape(array.shape)
        trainer, solution, _ = run(settings, saved=({**state, name: changed.astype(array.dtype)}, own))
        same = solution.history == whole[1].history and all(
            np.array_equal(mine, trainer.weights[weight]) for weight, mine in whole[0].weights.items()
        )
        assert not same, name


@pytest.mark.parametrize("change", ["missing", "shape", "dtype", "history"])
def test_the_state_of_another_run_is_refused(change: str) -> None:
    *_, states = run(QUICK)
    state, own = dict(states[2][0]), states[2][1]
    if change == "missing":
        del state["neurons/gates"]
    elif change == "shape":
        state["neurons/gates"] = np.ones(5)
    elif change == "dtype":
        state["weights/first.bias"] = state["weights/first.bias"].astype(np.float64)
    else:
        state["history"] = np.zeros((13, 13))
    with pytest.raises(CheckpointError, match="the checkpoint"):
        run(QUICK, saved=(state, own))
