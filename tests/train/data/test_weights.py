"""What samples and classes count: read, checked, scaled, and as a run uses it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import CheckpointError, DataError, OptionError
from onnxadmm.train.data.batches import Weighing
from onnxadmm.train.data.raw import Raw
from onnxadmm.train.data.weights import take_sample_weights, weigh
from onnxadmm.train.losses import IGNORED, Loss, Task
from tests.conftest import Command
from tests.shared import needs_training

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]

LABELS = np.array([0, 0, 0, 1, IGNORED, 2], np.int64)


def weighed(classes: Any, samples: Any = None, labels: Any = LABELS, loss: Loss | None = None) -> Weighing:
    found = weigh(classes=classes, samples=samples, labels=labels, count=4, loss=loss or Loss())
    assert found is not None
    return found


def test_balanced_classes_count_alike_together() -> None:
    found = weighed("balanced")
    counts = found.of(np.arange(6), LABELS)
    assert counts[:3].sum() == pytest.approx(counts[3]) == pytest.approx(counts[5])
    assert counts.mean() == pytest.approx(1)
    assert found.classes is not None
    assert found.classes.shape == (4,)  # a class without a sample may be in the test data


def test_numbers_by_class_and_by_sample_are_multiplied_and_scaled_to_a_mean_of_one(tmp_path: Path) -> None:
    samples = np.array([1, 2, 3, 4, 5, 6.0])
    by_hand = np.array([1 * 1, 2 * 1, 3 * 1, 4 * 2, 5 * 1, 6 * 3.0])
    (tmp_path / "w.txt").write_text("1\n2\n3\n0\n")
    np.save(tmp_path / "w.npy", np.array([1, 2, 3, 0.0]))
    for asked in ((1, 2, 3, 0), "1,2,3,0", str(tmp_path / "w.txt"), str(tmp_path / "w.npy")):
        found = weighed(asked, samples).of(np.arange(6), LABELS)
        np.testing.assert_allclose(found, by_hand / by_hand.mean(), rtol=1e-6)
        assert found.dtype == np.float32


def test_positions_have_the_weight_of_their_class_and_sample() -> None:
    labels = np.array([[0, 1], [1, IGNORED], [2, 2]])
    found = weighed((1, 2, 4, 8), np.array([1.0, 3.0, 1.0]), labels).of(np.array([2, 1]), labels[[2, 1]])
    np.testing.assert_allclose(found / found[0, 0] * 4, [[4, 4], [6, 3]], rtol=1e-6)


def test_samples_without_labels_have_weights() -> None:
    found = weighed(None, np.array([1.0, 3.0]), None)
    np.testing.assert_allclose(found.of(np.array([1, 0]), None), [1.5, 0.5])
    assert weigh(classes=None, samples=None, labels=LABELS, count=4, loss=Loss()) is None


@pytest.mark.parametrize(
    ("asked", "given", "told"),
    [
        ("balanced", {"labels": None}, "found data without labels"),
        ("balanced", {"loss": Loss(Task.BCE)}, "found --loss bce"),
        ("1,2", {}, "expected 4 finite numbers .* found 2: 1, 2"),
        ("1,2,-1,1", {}, "at least 0"),
        ("0,0,0,1", {}, "some above it"),
        ("1,2,nan,1", {}, "finite"),
        ("nothing", {}, "expected balanced, numbers .* found 'nothing'"),
    ],
)
def test_class_weights_that_cannot_be_used_are_refused(asked: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=f"--class-weights: .*{told}"):
        weighed(asked, **given)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.ones(2), r"expected 3 finite numbers .* found shape \[2\]"),
        (np.ones((3, 2)), r"found shape \[3, 2\]"),
        (np.array([1, -1, 2.0]), "found -1 to 2"),
        (np.zeros(3), "found 0 to 0"),
        (np.array([1, np.inf, 1]), "found 1 to inf"),
    ],
)
def test_sample_weights_that_are_none_are_refused(array: Any, told: str) -> None:
    raw = Raw("data", {"x": np.zeros((3, 4)), "w": array}, None)
    with pytest.raises(DataError, match=told):
        take_sample_weights(raw, "w", ["x"])


def test_sample_weights_are_an_array_of_the_data_or_a_file(tmp_path: Path) -> None:
    raw = Raw("data", {"x": np.zeros((3, 4)), "w": np.array([[1], [2], [3]])}, None)
    left, found = take_sample_weights(raw, "w", ["x"])
    assert list(left.inputs) == ["x"]
    assert found.tolist() == [1, 2, 3]
    np.save(tmp_path / "counts.npy", np.array([3, 2, 1]))
    left, found = take_sample_weights(raw, str(tmp_path / "counts.npy"), ["x"])
    assert list(left.inputs) == ["x", "w"]
    assert found.tolist() == [3, 2, 1]
    with pytest.raises(DataError, match="expected an array 'v' among the data, or a file, found x, w"):
        take_sample_weights(raw, "v", ["x"])
    with pytest.raises(OptionError, match=r"--sample-weights: .* found the input x"):
        take_sample_weights(raw, "x", ["x"])


# -- runs ----------------------------------------------------------------------------------------------------


def few(digits: Digits) -> dict[str, Any]:
    """Digits of which one class is rare."""
    images, labels = digits
    chosen = np.flatnonzero((labels != 8) | (np.arange(len(labels)) % 10 == 0))
    return {"images": images[chosen], "labels": labels[chosen]}


@needs_training
def test_weights_of_one_change_nothing(digits: DemoFiles, few_digits: Digits) -> None:
    data = few(few_digits)
    given: dict[str, Any] = {"budget": {"params": 0.3}, "bench": False}
    recipe = {"epochs": 2, "retrain_epochs": 2, "batch_size": 32}
    plain = oa.compress(digits.model, data=data, recipe=recipe, **given)
    ones = {**data, "w": np.full(len(data["labels"]), 5)}
    other = oa.compress(digits.model, data=ones, recipe={**recipe, "sample_weights": "w"}, **given)
    assert other.plan.to_json() == plain.plan.to_json()
    for name, array in oa.weights(plain.model).items():
        np.testing.assert_allclose(oa.weights(other.model)[name], array, atol=1e-4)
    assert [row.loss for row in other.history] == pytest.approx([row.loss for row in plain.history], rel=1e-3)


@needs_training
def test_a_sample_that_counts_nothing_is_as_good_as_absent_from_the_gradient_and_the_figures(
    digits: DemoFiles, few_digits: Digits
) -> None:
    """Labels of the samples that count nothing are wrong: nothing may come of that."""
    images, labels = few_digits
    counts = (np.arange(len(labels)) % 3 > 0).astype(np.float32)
    wrong = np.where(counts > 0, labels, (labels + 1) % 10)
    data = {"images": images, "labels": wrong, "w": counts}
    recipe = {"epochs": 2, "retrain_epochs": 3, "batch_size": 32, "distillation": 0.0, "held_out": 0.3}
    given: dict[str, Any] = {"budget": {"params": 0.5}, "bench": False, "data": data}
    weighted = oa.compress(digits.model, recipe={**recipe, "sample_weights": "w"}, **given)
    plain = oa.compress(digits.model, recipe=recipe, expect_accuracy=0, **given)
    assert weighted.before.heldout is not None
    assert plain.before.heldout is not None
    assert weighted.before.heldout.value > 0.95 > 0.75 > plain.before.heldout.value
    assert weighted.after.heldout.value > plain.after.heldout.value + 0.2  # type: ignore[union-attr]
    assert any("weighted by sample" in note for note in weighted.simplified)


@needs_training
def test_the_command_line_weighs_and_says_so(
    digits: DemoFiles, few_digits: Digits, command: Command, tmp_path: Path
) -> None:
    data = few(few_digits)
    np.savez(tmp_path / "train.npz", **data, counts=np.linspace(1, 2, len(data["labels"])))
    words = ["compress", digits.model, "--data", tmp_path / "train.npz", "--epochs", 2, "--retrain-epochs", 2]
    words += ["--batch-size", 32, "--params", 0.5, "--no-bench", "--out", tmp_path / "out"]
    words += ["--class-weights", "balanced", "--sample-weights", "counts"]
    ran = command(*words)
    assert ran.status == 0, ran.stderr
    report = (tmp_path / "out" / "report.json").read_text()
    assert "Loss and figures are weighted by sample and by class (" in report
    assert "--class-weights balanced --sample-weights counts" in report
    ran = command(*words[:-4], "--class-weights", "1,2", "--force")
    assert ran.status == 2
    assert "--class-weights: expected 10 finite numbers" in " ".join(ran.stderr.split())


@needs_training
def test_a_run_with_other_weights_is_not_gone_on_with(digits: DemoFiles, few_digits: Digits) -> None:
    data = few(few_digits)
    shared = oa.compress.__globals__["Shared"]()
    given: dict[str, Any] = {"bench": False, "shared": shared}
    recipe = {"epochs": 1, "retrain_epochs": 0, "batch_size": 32, "sample_weights": "w"}
    counts = np.linspace(1, 2, len(data["labels"]))
    oa.compress(digits.model, data={**data, "w": counts}, budget={"params": 0.5}, recipe=recipe, **given)
    with pytest.raises(CheckpointError, match="--data"):
        oa.compress(digits.model, data={**data, "w": counts**2}, budget={"params": 0.4}, recipe=recipe, **given)
