"""What a run that calibrates is expected to take, and epochs of retraining that fit a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.calibrate.expect import Work
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from onnxadmm.progress import Iteration
from onnxadmm.report.report import StageTime
from onnxadmm.run import steps
from onnxadmm.run.forecast_calibrated import CalibratedPaces
from onnxadmm.run.rehearsal import Pace
from tests.conftest import Command
from tests.run.test_resume import assert_same_result
from tests.shared import needs_training

pytestmark = pytest.mark.usefixtures("quick_latency")

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(method="calibrated", retrain_epochs=8, batch_size=64)
#: Ten steps an epoch, which takes 5 s and its look 1 s, behind a calibration of 10 s.
PACES = CalibratedPaces(
    Work(10.0, 50.0),
    10,
    Pace(2.0, 0.5, 1.0, memory_bytes=7),
    (StageTime("measure", 4.0), StageTime("latency", 0.0)),
    left=0.0,
)


def test_a_run_is_its_calibration_its_steps_and_its_looks() -> None:
    stages = {stage.name: stage.seconds for stage in PACES.stages(RECIPE)}
    assert stages == {"calibrate": 10.0, "retrain": 2 + 80 * 0.5 + 9 * 1, "measure": 4.0}
    found = PACES.forecast(RECIPE, file_bytes=100, teacher_bytes=3)
    assert (found.epochs, found.retrain_epochs, found.disk_bytes) == (0, 8, 300)
    assert found.seconds == PACES.seconds(RECIPE) == 65.0
    assert found.memory_bytes == 50_000_003  # the calibration's, which is more than that of the steps


def test_a_light_cut_is_told_the_epochs_that_it_has() -> None:
    light, recipe = replace(PACES, left=0.9), oa.Recipe(method="calibrated")
    epochs = recipe.retraining_epochs(steps_per_epoch=10, left=0.9)
    assert epochs < PACES.retraining_epochs(recipe)
    assert light.forecast(recipe, file_bytes=1, teacher_bytes=0).retrain_epochs == epochs
    assert light.seconds(recipe) == PACES.seconds(replace(recipe, retrain_epochs=epochs))
    assert light.fitted(recipe, minutes=1e6, spent=0.0) == replace(recipe, retrain_epochs=epochs)


def test_one_that_trains_nothing_has_no_such_stage() -> None:
    alone = replace(PACES, retrain=None)
    assert [stage.name for stage in alone.stages(replace(RECIPE, retrain_epochs=0))] == ["calibrate", "measure"]


@pytest.mark.parametrize("spent", [0.0, 9.0])
@pytest.mark.parametrize("minutes", [0.5, 0.8, 1.0, 1.2, 100.0])
def test_as_many_epochs_are_left_as_fit(minutes: float, spent: float) -> None:
    limit = 0.9 * 60 * minutes - spent
    fit = [epochs for epochs in range(1, 9) if PACES.seconds(replace(RECIPE, retrain_epochs=epochs)) <= limit]
    if fit:
        assert PACES.fitted(RECIPE, minutes=minutes, spent=spent) == replace(RECIPE, retrain_epochs=max(fit))
        return
    with pytest.raises(OptionError) as error:
        PACES.fitted(RECIPE, minutes=minutes, spent=spent)
    assert f"--max-minutes {minutes:g}: expected time for the calibration and 1 epoch of retraining" in str(error.value)
    assert "about 32 s" in str(error.value)


def test_the_time_that_is_told_to_be_enough_is() -> None:
    with pytest.raises(OptionError, match=r"allow 0\.5 minutes") as error:
        PACES.fitted(RECIPE, minutes=0.1, spent=0.0)
    assert "fewer samples" in str(error.value)
    assert PACES.fitted(RECIPE, minutes=0.5, spent=0.0).retrain_epochs == 1


def _run(digits: DemoFiles, data: Digits, **named: Any) -> oa.Compressed:
    given: dict[str, Any] = {"budget": oa.Budget(params=0.2), "bench": False, "recipe": RECIPE, "max_minutes": 0.8}
    return oa.compress(digits.model, data=data, **{**given, **named})


@needs_training
@pytest.mark.slow
def test_epochs_are_shortened_and_a_resumed_run_keeps_them(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxadmm.run.checkpoint._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("onnxadmm.run.checkpoint._SHARE_OF_TIME", 1e9)
    # 43 s are given out, of which the stages before take some: five epochs take 38 s, and each one more 6 s.
    slow = replace(PACES, calibration=Work(1.0, 1.0))
    monkeypatch.setattr(steps, "measured_calibration", lambda *given, **named: slow)
    whole = _run(digits, few_digits, out=tmp_path / "whole")
    epochs = whole.options["retrain_epochs"]
    assert isinstance(epochs, int)
    assert 1 <= epochs <= 5
    assert [row.stage for row in whole.history] == ["retrain"] * epochs
    assert f"--retrain-epochs {epochs}" in whole.command
    assert "--max-minutes" not in whole.command

    def first_epoch(event: object) -> None:
        if isinstance(event, Iteration):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(digits, few_digits, out=tmp_path / "cut", progress=first_epoch)
    monkeypatch.setattr(steps, "measured_calibration", lambda *given, **named: pytest.fail("measured anew"))
    _run(digits, few_digits, out=tmp_path / "cut", resume=True)
    assert_same_result(tmp_path / "cut", tmp_path / "whole")


@needs_training
@pytest.mark.slow
def test_retraining_behind_a_calibration_without_labels_fits_a_time_as_well(
    digits: DemoFiles, few_digits: Digits
) -> None:
    asked: dict[str, Any] = {"calibrate": few_digits[0], "budget": {"params": 0.5}, "bench": False}
    found = oa.forecast(digits.model, recipe={"retrain_epochs": 20_000}, quick=True, **asked)
    assert 1 <= found.retrain_epochs < 20_000
    assert found.seconds <= 300


@needs_training
@pytest.mark.slow
def test_a_run_without_labels_trains_for_no_longer(
    digits: DemoFiles, few_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        steps, "measured_calibration", lambda *given, **named: replace(PACES, calibration=Work(1.0, 1.0))
    )
    asked: dict[str, Any] = {"calibrate": few_digits[0], "budget": {"params": 0.5}, "bench": False}
    report = oa.compress(digits.model, recipe={"retrain_epochs": 20}, max_minutes=0.8, **asked).report
    assert 1 <= report.options["retrain_epochs"] <= 5  # type: ignore[operator]
    assert [row.stage for row in report.history] == ["retrain"] * report.options["retrain_epochs"]  # type: ignore[operator]
    assert {stage.name for stage in report.forecast} >= {"calibrate", "retrain"}


@needs_training
def test_a_time_that_nothing_fits_is_refused_before_it_begins(
    digits: DemoFiles, command: Command, tmp_path: Path
) -> None:
    words = ("--data", digits.training, "--scale", 1 / 16, "--params", "0.5", "--out", tmp_path / "out")
    ran = command("compress", digits.model, *words, "--method", "calibrated", "--max-minutes", "0.01")
    assert ran.status == 2
    assert "--max-minutes 0.01: expected time for the calibration and 1 epoch" in " ".join(ran.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["calibrate", "data"])
def test_a_calibration_behind_which_nothing_trains_has_no_epochs_to_shorten(
    way: str, digits: DemoFiles, few_digits: Digits
) -> None:
    given: dict[str, Any] = {"calibrate": few_digits[0]}
    if way == "data":
        given = {"data": few_digits, "recipe": replace(RECIPE, retrain_epochs=0)}
    with pytest.raises(OptionError, match=r"--quick: expected a run that trains.*nothing does.*--effort quick"):
        oa.compress(digits.model, budget={"params": 0.5}, quick=True, **given)
