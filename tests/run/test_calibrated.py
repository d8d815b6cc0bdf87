"""Whole runs of ``--method calibrated``: units chosen before anything trains, every step for the small network."""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from onnxadmm.progress import Iteration
from onnxadmm.run.forecast import STAGE
from tests.conftest import Command
from tests.run.test_resume import assert_same_result
from tests.shared import needs_training

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(method="calibrated", retrain_epochs=3, batch_size=64)

pytestmark = pytest.mark.usefixtures("quick_latency")


def _run(digits: DemoFiles, data: Digits, **named: Any) -> oa.Compressed:
    given: dict[str, Any] = {"budget": oa.Budget(params=0.2), "bench": False, "recipe": RECIPE}
    return oa.compress(digits.model, data=data, **{**given, **named})


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize("method", ["calibrated", "auto"])
def test_nothing_trains_before_the_cut_and_the_small_network_learns_behind_it(
    method: Any, digits: DemoFiles, few_digits: Digits
) -> None:
    result = _run(digits, few_digits, recipe=replace(RECIPE, method=method))
    assert [(row.stage, row.epoch) for row in result.report.history] == [
        ("retrain", 1.0),
        ("retrain", 2.0),
        ("retrain", 3.0),
    ]
    assert result.verification is not None
    assert result.verification.passed
    (line,) = result.budgets
    assert 0.9 * line.limit < line.reached <= line.limit
    names = [stage.name for stage in result.report.stages]
    assert names.index(STAGE) < names.index("calibrate") < names.index("refit") < names.index("retrain")
    assert {stage.name for stage in result.report.forecast} >= {"calibrate", "retrain"}
    assert "--method calibrated" in result.report.command
    assert "--epochs" not in result.report.command


@needs_training
@pytest.mark.parametrize(
    ("budget", "said", "trains"),
    [
        ({"params": 0.5}, {}, False),
        ({"params": 0.5, "connections": 0.5}, {}, True),
        ({"params": 0.5}, {"epochs": 2}, True),
    ],
)
def test_whoever_says_nothing_of_the_method_has_the_whole_network_trained_where_that_chooses(
    budget: dict[str, float], said: dict[str, int], trains: bool, digits: DemoFiles, few_digits: Digits
) -> None:
    recipe = oa.Recipe(retrain_epochs=1, batch_size=64, **said)  # type: ignore[arg-type]
    found = oa.forecast(digits.model, data=few_digits, budget=budget, recipe=recipe, bench=False)
    assert (found.epochs > 0) == trains
    assert found.retrain_epochs == 1


@needs_training
@pytest.mark.slow
def test_layers_of_which_few_samples_say_little_are_warned_of_where_nothing_is_learnt_afterwards(
    digits: DemoFiles, few_digits: Digits
) -> None:
    images, labels = (part[:48] for part in few_digits)
    given: dict[str, Any] = {"budget": oa.Budget(params=0.5), "bench": False, "expect_accuracy": 0}
    trained = _run(digits, (images, labels), recipe=replace(RECIPE, batch_size=16), **given)
    alone = oa.compress(digits.model, calibrate=images, **given)
    found = [["more numbers than the samples" in each for each in run.report.warnings] for run in (trained, alone)]
    assert [any(each) for each in found] == [False, True]


@needs_training
@pytest.mark.slow
def test_labels_are_learnt_from(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    wrong = np.roll(np.arange(10), 1)[labels].astype(labels.dtype)
    taught = replace(RECIPE, distillation=0.0, retrain_epochs=6)
    right, other = (
        _run(digits, (images, each), recipe=taught, expect_accuracy=0, test=few_digits) for each in (labels, wrong)
    )
    assert right.after.test is not None
    assert other.after.test is not None
    assert other.after.test.value < right.after.test.value - 0.3


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize("at", ["in the fit", "in retraining"])
def test_an_interrupted_run_ends_as_one_that_was_not(
    at: str, digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxadmm.run.checkpoint._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("onnxadmm.run.checkpoint._SHARE_OF_TIME", 1e9)
    _run(digits, few_digits, out=tmp_path / "whole")
    told = 0

    def second_epoch(event: object) -> None:
        nonlocal told
        told += isinstance(event, oa.Iteration)
        if told == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "in the fit":
            patch.setattr("onnxadmm.run.calibrations.refit", lambda *given, **named: 1 / 0)
        with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
            _run(digits, few_digits, out=tmp_path / "cut", progress=second_epoch)
    _run(digits, few_digits, out=tmp_path / "cut", resume=True)
    assert_same_result(tmp_path / "cut", tmp_path / "whole")


@needs_training
@pytest.mark.slow
def test_a_sweep_measures_the_groups_once(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    found = oa.sweep(
        digits.model, data=few_digits, recipe=RECIPE, bench=False, amounts={"params": [0.3, 0.1]}, out=tmp_path / "both"
    )
    assert len(found.points) == 2
    alone = _run(digits, few_digits, budget=oa.Budget(params=0.1), out=tmp_path / "alone")
    assert alone.verification is not None
    plans = [oa.Plan.read(folder / "plan.json") for folder in (tmp_path / "both" / "params-0.1", tmp_path / "alone")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, ("--epochs", "found 3", "--retrain-epochs")),
        ({"mode": "joint"}, ("--mode", "joint")),
        ({"refit": True}, ("--refit", "--method admm")),
        ({"refit": False}, ("--no-refit",)),
        ({"learning_rate": 1e-4}, ("--learning-rate", "0.0001")),
    ],
)
def test_options_of_pruning_are_refused(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as error:
        replace(RECIPE, **changes)
    for word in words:
        assert word in str(error.value)
    assert "--method calibrated" in str(error.value)


def test_the_small_network_has_the_steps_of_both_trainings() -> None:
    usual, calibrated = oa.Recipe(), oa.Recipe(method="calibrated")
    pruned = usual.settings(steps_per_epoch=100).epochs
    assert calibrated.retraining_epochs(steps_per_epoch=100) == pruned + usual.retraining_epochs(steps_per_epoch=100)
    assert replace(calibrated, retrain_epochs=2).retraining_epochs(steps_per_epoch=100) == 2


@pytest.mark.parametrize(("left", "part"), [(0.0, 1.0), (0.3, 1.0), (0.5, 1.0), (0.7, 0.6), (0.9, 0.2), (1.0, 0.2)])
def test_a_light_cut_has_a_share_of_the_steps(left: float, part: float) -> None:
    calibrated = oa.Recipe(method="calibrated")
    for steps_per_epoch, whole in ((100, 107), (10_000, 3), (5, 300)):
        found = calibrated.retraining_epochs(steps_per_epoch=steps_per_epoch, left=left)
        assert found == math.ceil(Fraction(str(part)) * whole)
    assert replace(calibrated, retrain_epochs=40).retraining_epochs(steps_per_epoch=100, left=left) == 40
    assert oa.Recipe(method="admm").retraining_epochs(steps_per_epoch=100, left=left) == 85


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2])  # the first state of the training is kept behind its first epoch
def test_an_interrupted_run_has_the_steps_that_it_began_with(
    at: int, digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxadmm.run.checkpoint._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("onnxadmm.run.checkpoint._SHARE_OF_TIME", 1e9)
    monkeypatch.setattr("onnxadmm.run.recipe._RETRAIN_STEPS", 80)
    monkeypatch.setattr("onnxadmm.run.recipe._PRUNE_STEPS", 20)
    asked: dict[str, Any] = {"budget": oa.Budget(macs=0.8), "recipe": oa.Recipe(batch_size=64)}
    whole = _run(digits, few_digits, out=tmp_path / "whole", **asked)
    samples = math.ceil(0.9 * len(few_digits[1]))
    epochs = math.ceil(0.4 * math.ceil(100 / math.ceil(samples / 64)))
    assert [row.stage for row in whole.history] == ["retrain"] * epochs
    assert whole.options["method"] == "calibrated"

    def interrupt(event: object) -> None:
        if isinstance(event, Iteration) and event.epoch == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(digits, few_digits, out=tmp_path / "cut", progress=interrupt, **asked)
    # A budget in milliseconds leaves another share where the original takes another time.
    monkeypatch.setattr("onnxadmm.admm.problem.Problem.left", 0.5)
    _run(digits, few_digits, out=tmp_path / "cut", resume=True, **asked)
    assert_same_result(tmp_path / "cut", tmp_path / "whole")


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"macs": 0.8}, {"latency": 0.8}, {"macs": 0.9, "params": 0.7}])
@pytest.mark.parametrize("taught", [False, True])
def test_a_run_takes_the_epochs_that_it_was_told_to_take(
    budget: dict[str, float], taught: bool, digits: DemoFiles, few_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxadmm.run.recipe._RETRAIN_STEPS", 80)
    monkeypatch.setattr("onnxadmm.run.recipe._PRUNE_STEPS", 20)
    # What is measured is not what the table tells, which is corrected then.
    monkeypatch.setattr("onnxadmm.latency.cost.LatencyCost.measure", lambda cost, keep: 0.9 * cost.total(keep))
    asked: dict[str, Any] = {"budget": budget, "recipe": oa.Recipe(batch_size=64), "bench": False}
    asked |= {"teacher": digits.model} if taught else {}
    told = oa.forecast(digits.model, data=few_digits, **asked).retrain_epochs
    ran = len(oa.compress(digits.model, data=few_digits, **asked).history)
    assert told == ran
    usual = oa.Recipe(method="calibrated").retraining_epochs(
        steps_per_epoch=math.ceil(math.ceil(0.9 * len(few_digits[1])) / 64)
    )
    # From another teacher there is as much to learn, however little goes.
    assert told == usual if taught else told < usual


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize(("rate", "in_vain"), [(0.3, True), (5e-3, False)])
def test_a_training_that_leaves_nothing_better_is_told_of(
    rate: float, in_vain: bool, digits: DemoFiles, few_digits: Digits
) -> None:
    recipe = replace(RECIPE, retrain_epochs=1, retrain_learning_rate=rate)
    report = _run(digits, few_digits, recipe=recipe, budget={"params": 0.5 if in_vain else 0.05}).report
    told = [note for note in report.simplified if "left nothing better on held-out data" in note]
    assert len(told) == in_vain
    assert all("Retraining of 1 epoch " in note for note in told)


@needs_training
@pytest.mark.slow
def test_it_looks_as_closely_as_it_is_told(digits: DemoFiles, few_digits: Digits) -> None:
    told: list[object] = []
    report = _run(digits, few_digits, calibration={"effort": "quick"}, progress=told.append).report
    assert sum("at --effort quick will take" in str(event) for event in told) == 1
    assert report.options["effort"] == "quick"
    assert "--effort quick" in report.command
    assert "--method calibrated" in report.command


@pytest.mark.parametrize(
    ("recipe", "calibration", "words"),
    [
        (
            {"method": "admm"},
            {"effort": "quick"},
            "--effort: expected a calibration.*while the network trains; leave it out",
        ),
        ({"epochs": 2}, {"memory": "1GB"}, "--memory: expected a calibration"),
        ({"method": "calibrated"}, {"max_drop": 1.0}, "--max-drop: expected samples alone.*use onnxadmm.search"),
    ],
)
def test_options_of_a_calibration_that_would_change_nothing_are_refused(
    recipe: dict[str, Any], calibration: dict[str, Any], words: str, digits: DemoFiles, few_digits: Digits
) -> None:
    with pytest.raises(OptionError, match=words):
        _run(digits, few_digits, recipe=recipe, calibration=calibration)


@needs_training
@pytest.mark.slow
def test_the_command_line_takes_it(digits: DemoFiles, command: Command, tmp_path: Path) -> None:
    ran = command(
        "compress", digits.model, "--data", digits.training, "--scale", "0.0625", "--params", "0.2", "--method",
        "calibrated", "--retrain-epochs", "2", "--no-bench", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.status == 0, ran.stderr
    assert "calibrate" in ran.stderr + ran.stdout
