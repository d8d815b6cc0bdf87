"""The highest rate that a network bears: found on a bowl whose curvature says which that is."""

from collections.abc import Iterator, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.admm.state import State
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.rate_trial import find_rate, trial_steps, window
from onnxadmm.train.trainer import OrtTrainer

NOTHING: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})
BATCH = cast("Batch", None)  # the bowl reads none


class Bowl:
    """Gradient descent with momentum on ``curvature w^2 / 2``: above a rate of ``3.8 / curvature`` it flies out."""

    batch_size = 64

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature
        self.weights = {"w": np.array([1.0, 2.0], np.float32)}
        self._momentum = np.zeros(2, np.float32)
        self._gradient = np.zeros(2, np.float32)

    def loss(self) -> float:
        return float(self.curvature * np.square(self.weights["w"], dtype=np.float64).sum() / 2)

    def backward(self, batch: Batch) -> float:
        self._gradient = np.float32(self.curvature) * self.weights["w"]
        return self.loss()

    def update(self, rate: float) -> None:
        self._momentum *= np.float32(0.9)
        self._momentum += self._gradient
        self.weights["w"] -= np.float32(rate) * self._momentum

    def snapshot(self) -> dict[str, Any]:
        return {name: array.copy() for name, array in self.weights.items()}

    def restore(self, weights: Mapping[str, Any]) -> None:
        self.weights["w"][...] = weights["w"]

    def state(self) -> State:
        return {"momentum": self._momentum}

    def load(self, state: State) -> None:
        self._momentum[...] = state["momentum"]


def batches() -> Iterator[Batch]:
    return repeat(BATCH)


@pytest.mark.parametrize(
    ("curvature", "share"), [(1.0, 1.0), (10.0, 0.3), (30.0, 0.1), (100.0, 0.03), (350.0, 0.01), (1e9, 0.01)]
)
def test_the_largest_rate_is_found_that_the_network_bears(curvature: float, share: float) -> None:
    bowl = Bowl(curvature)
    with np.errstate(over="ignore", invalid="ignore"):
        trial = find_rate(
            cast("OrtTrainer", bowl),
            batches,
            peak=1.0,
            steps=200,
            loss=bowl.loss,
            most=bowl.loss(),
            limit=1e30,
            zeros=NOTHING,
        )
    assert trial.rate == share
    assert trial.borne == (curvature != 1e9)
    higher = [each for each in (1.0, 0.3, 0.1, 0.03, 0.01) if each > share or curvature == 1e9]
    assert [rate for rate, _ in trial.refused] == higher
    assert all(loss > Bowl(curvature).loss() for _, loss in trial.refused)


def test_a_trial_leaves_the_network_as_it_was_and_its_moments_at_zero() -> None:
    bowl = Bowl(30.0)
    weights = bowl.snapshot()
    find_rate(
        cast("OrtTrainer", bowl), batches, peak=0.2, steps=50, loss=bowl.loss, most=0.0, limit=np.inf, zeros=NOTHING
    )
    np.testing.assert_array_equal(bowl.weights["w"], weights["w"])
    np.testing.assert_array_equal(bowl.state()["momentum"], np.zeros(2))


def test_zeros_stay_zero_in_a_trial() -> None:
    bowl, seen = Bowl(1.0), []
    bowl.weights["w"][0] = 0.5

    def loss() -> float:
        seen.append(bowl.weights["w"].copy())
        return 0.0

    zeros = {"w": np.array([True, False])}
    find_rate(cast("OrtTrainer", bowl), batches, peak=0.1, steps=5, loss=loss, most=1.0, limit=1e30, zeros=zeros)
    assert seen[0][0] == 0.0
    assert seen[0][1] not in (0.0, 2.0)


def test_a_rate_that_leads_far_away_and_back_is_not_borne() -> None:
    bowl = Bowl(10.0)
    losses: list[float] = []

    def backward(batch: Batch) -> float:
        losses.append(Bowl.backward(bowl, batch))
        return losses[-1]

    bowl.backward = backward  # type: ignore[method-assign]
    given = {"peak": 0.37, "steps": 100, "loss": bowl.loss, "most": bowl.loss(), "zeros": NOTHING}
    trainer = cast("OrtTrainer", bowl)
    assert find_rate(trainer, batches, limit=np.inf, **given).rate == 0.37  # type: ignore[arg-type]
    means = np.reshape(losses, (10, 10)).mean(axis=1)
    assert means.max() < max(losses)
    assert find_rate(trainer, batches, limit=1.01 * means.max(), **given).rate == 0.37  # type: ignore[arg-type]
    found = find_rate(trainer, batches, limit=0.99 * means.max(), **given)  # type: ignore[arg-type]
    assert found.refused == ((0.37, np.inf),)
    assert found.borne


def test_means_are_of_enough_samples() -> None:
    assert [window(size) for size in (1, 8, 64, 256)] == [512, 64, 10, 10]


def test_a_short_training_takes_its_rate_untried_and_a_trial_is_a_small_part_of_a_long_one() -> None:
    assert trial_steps(999) == 0
    assert trial_steps(1000) == 50
    assert trial_steps(2200) == 110
    assert trial_steps(10**6) == 200
