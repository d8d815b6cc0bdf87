"""The original's weights, fitted anew between the cut and retraining, where they are better than the trained ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.run.trainings import Pruned, Training
from tests.shared import needs_training

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_latency"), needs_training]


def pruning(change: Callable[[Any], Any], *, zeros: bool = False) -> Callable[..., Pruned]:
    """Return what stands for pruning: a third of each group goes, weights are changed, and nothing trains."""

    def prune(training: Training, model: Any, problem: Any, **named: Any) -> Pruned:
        from onnxadmm.graph.constants import constant, constants_by_name

        keep = np.ones(problem.unit_count, np.bool_)
        for group in problem.groups:
            keep[group.start : group.start + group.count // 3] = False
        values = {name: constant(value) for name, value in constants_by_name(model).items()}
        weights = {name: np.asarray(array) for name, array in values.items() if array is not None and array.ndim > 1}
        pruned = {name: np.zeros(array.shape, np.bool_) for name, array in weights.items()} if zeros else {}
        return Pruned(keep, pruned, {name: change(array).astype(array.dtype) for name, array in weights.items()})

    return prune


def run(digits: DemoFiles, data: Samples, **named: Any) -> oa.Compressed:
    recipe = {"epochs": 1, "retrain_epochs": 0, "batch_size": 32, "refit": True, **named}
    training, test = tuple(array[:320] for array in data), tuple(array[320:] for array in data)
    return oa.compress(digits.model, data=training, test=test, budget=oa.Budget(macs=0.5), bench=False, recipe=recipe)


def says_so(result: oa.Compressed) -> bool:
    return any("those of the original, fitted" in note for note in result.simplified)


def test_weights_that_nothing_made_up_for_are_fitted(
    digits: DemoFiles, few_digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "prune", pruning(lambda array: array))
    # So short a run is refitted where nobody says as well.
    found = {refit: run(digits, few_digits, refit=refit) for refit in (None, True, False)}
    assert all(result.verification.passed for result in found.values())
    assert [says_so(result) for result in found.values()] == [True, True, False]
    accuracies = {refit: result.after.test.value for refit, result in found.items()}
    assert accuracies[None] == accuracies[True] > accuracies[False] + 0.02


def test_weights_that_are_worse_than_the_trained_ones_are_left(
    digits: DemoFiles, few_digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "prune", pruning(lambda array: array))
    monkeypatch.setattr("onnxadmm.run.refits.REFIT_SAMPLES", 1)
    assert not says_so(run(digits, few_digits))


def test_weights_of_which_entries_went_stay_as_they_were_trained(
    digits: DemoFiles, few_digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "prune", pruning(lambda array: array, zeros=True))
    assert not says_so(run(digits, few_digits))
