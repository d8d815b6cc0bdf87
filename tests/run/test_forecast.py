"""What a run is expected to take, and epochs that fit a time."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import CheckpointError, DivergedError, OptionError
from onnxadmm.latency.cost import LatencyCost
from onnxadmm.progress import Iteration, Silent
from onnxadmm.report.report import StageTime
from onnxadmm.run import forecast
from onnxadmm.run.forecast import Forecast, Paces, about_off, fitted, forecast_of
from onnxadmm.run.rehearsal import Pace
from onnxadmm.run.steps import Compression
from tests.conftest import Command
from tests.latency.clock import Clock
from tests.latency.clock import clock as clock
from tests.shared import needs_training

pytestmark = pytest.mark.usefixtures("quick_latency")

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(epochs=3, retrain_epochs=4, batch_size=64)
#: Ten steps an epoch; one of pruning takes 10 s and its eight iterations 8 s, one of retraining 5 s and a look 1 s.
PACES = Paces(10, Pace(3.0, 1.0, 1.0), Pace(2.0, 0.5, 1.0), (StageTime("measure", 4.0), StageTime("latency", 0.0)))


def seconds(**epochs: Any) -> dict[str, float]:
    return {stage.name: stage.seconds for stage in PACES.stages(oa.Recipe(**epochs))}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- the arithmetic ------------------------------------------------------------------------------------------


def test_a_stage_is_its_beginning_its_steps_and_its_looks() -> None:
    # 5 epochs of 10 steps with 8 iterations each; 7 epochs with a look before the first and after each.
    assert seconds(epochs=5, retrain_epochs=7) == {
        "prune": 3 + 50 * 1 + 40 * 1,
        "retrain": 2 + 70 * 0.5 + 8 * 1,
        "measure": 4.0,
    }


def test_a_run_that_does_not_retrain_or_goes_on_from_a_larger_network_takes_less() -> None:
    alone = replace(PACES, retrain=None, shares=(0.5, 1.0))
    stages = alone.stages(oa.Recipe(epochs=4, retrain_epochs=0))
    assert [stage.name for stage in stages] == ["prune", "measure"]
    assert stages[0].seconds == 3 + 20 + 2 * 8  # two epochs, and still 8 iterations in each


def test_what_a_smaller_network_takes_is_a_line_over_its_size() -> None:
    paces = replace(PACES, macs=(1000.0, 400.0))  # 1 s a step at 1000, 0.5 s at 400
    found = paces.under(280.0, shares=(0.25, 0.5))
    assert found.retrain is not None
    assert found.retrain.step == pytest.approx(0.4)
    assert (found.retrain.look, found.retrain.opening) == (1.0, 2.0)
    assert found.prune == paces.prune
    stages = {stage.name: stage.seconds for stage in found.stages(oa.Recipe(epochs=8, retrain_epochs=5))}
    assert stages == pytest.approx({"prune": 3 + 20 + 2 * 5, "retrain": 2 + 3 * 10 * 0.4 + 4 * 1, "measure": 4.0})
    steep = replace(paces, prune=Pace(3.0, 9.0, 1.0)).under(100.0, shares=(1.0, 1.0))
    assert steep.retrain is not None
    assert steep.retrain.step == pytest.approx(0.5 / 4)  # never less than in proportion


def test_memory_and_disk_are_those_of_the_larger_training() -> None:
    paces = replace(
        PACES,
        prune=replace(PACES.prune, memory_bytes=7, state_bytes=100),
        retrain=Pace(1.0, 1.0, 1.0, memory_bytes=9, state_bytes=30),
    )
    found = forecast_of(paces, oa.Recipe(epochs=1, retrain_epochs=2), file_bytes=1000)
    assert (found.memory_bytes, found.epochs, found.retrain_epochs) == (9, 1, 2)
    assert found.disk_bytes == 1000 + 2 * (1000 + 100)
    assert found.seconds == sum(stage.seconds for stage in found.stages)
    assert re.match(r"This will take about 49 s: prune 21 s \(1 epoch\), retrain \d+ s \(2 epochs\)", found.describe())


# -- epochs that fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [1, 2, 3, 5, 8, 13, 30, 60, 200])
@pytest.mark.parametrize("asked", [(20, 40), (300, 300), (5, 19), (1, 1), (7, 0)])
@pytest.mark.parametrize("spent", [0.0, 6.0])
def test_epochs_fit_the_time_and_are_as_many_as_do(asked: tuple[int, int], minutes: float, spent: float) -> None:
    whole = oa.Recipe(epochs=asked[0], retrain_epochs=asked[1])
    paces = PACES if asked[1] else replace(PACES, retrain=None)
    found = fitted(paces, whole, minutes=minutes, spent=spent)
    assert found.epochs is not None
    assert found.retrain_epochs is not None
    assert 1 <= found.epochs <= asked[0]
    assert min(1, asked[1]) <= found.retrain_epochs <= asked[1]
    assert paces.seconds(found) + spent <= 60 * minutes
    if found != whole:
        share = max(found.epochs / asked[0], found.retrain_epochs / max(1, asked[1]))
        more = replace(
            whole, epochs=min(asked[0], found.epochs + 1), retrain_epochs=min(asked[1], found.retrain_epochs + 1)
        )
        assert paces.seconds(more) + spent > 0.9 * 60 * minutes
        # Both shortened alike, up to rounding.
        assert abs(found.epochs - share * asked[0]) <= 1 + asked[0] / max(asked)
    assert replace(found, epochs=whole.epochs, retrain_epochs=whole.retrain_epochs) == whole


def test_a_run_has_at_least_four_iterations() -> None:
    paper = oa.Recipe(method="paper", epochs=30, retrain_epochs=30)  # one iteration an epoch
    least = next(found for second in range(10, 200) if (found := _fits(paper, second / 60)) is not None)
    assert least.epochs == 4
    assert least.retrain_epochs == 1


def _fits(recipe: oa.Recipe, minutes: float) -> oa.Recipe | None:
    try:
        return fitted(PACES, recipe, minutes=minutes, spent=0.0)
    except OptionError:
        return None


@pytest.mark.parametrize("spent", [0.0, 100.0, 1000.0])
def test_too_little_time_is_refused_and_the_time_that_is_named_is_enough(spent: float) -> None:
    recipe = oa.Recipe(epochs=20, retrain_epochs=40)
    with pytest.raises(OptionError, match=r"--max-minutes 0\.2: expected time for 1 epoch of pruning and 1 of ") as e:
        fitted(PACES, recipe, minutes=0.2, spent=spent)
    named = re.search(r"allow ([\d.]+) minutes", str(e.value))
    assert named is not None
    assert fitted(PACES, recipe, minutes=float(named[1]), spent=spent).epochs == 1
    with pytest.raises(OptionError):
        fitted(PACES, recipe, minutes=float(named[1]) - 0.2, spent=spent)


# -- what came of it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("took", "is_told"), [(100, False), (126, False), (140, True), (70, True)])
def test_a_forecast_that_was_off_is_admitted(took: float, is_told: bool) -> None:
    expected = Forecast((StageTime("prune", 60.0), StageTime("retrain", 40.0)), 1, 1, 0, 0)
    stages = (StageTime("analyse", 500.0), StageTime("forecast", 3.0), StageTime("prune", took))
    assert bool(about_off(stages, expected)) is is_told


def test_a_few_seconds_are_no_matter() -> None:
    assert not about_off((StageTime("prune", 1.0),), Forecast((StageTime("prune", 5.0),), 1, 1, 0, 0))


# -- runs ----------------------------------------------------------------------------------------------------


class Interrupted(Silent):
    """Ends a run at an iteration."""

    def __init__(self, at: int) -> None:
        self._left = at

    def iteration(self, row: Iteration) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


@pytest.fixture
def options(few_digits: Digits) -> dict[str, Any]:
    return {"data": few_digits, "budget": {"params": 0.5}, "recipe": RECIPE, "bench": False}


@needs_training
def test_a_run_takes_about_as_long_as_was_expected(digits: DemoFiles, options: dict[str, Any], tmp_path: Path) -> None:
    recipe = oa.Recipe(epochs=8, retrain_epochs=30, batch_size=64)
    result = oa.compress(digits.model, out=tmp_path / "out", **{**options, "recipe": recipe})
    expected = {stage.name: stage.seconds for stage in result.forecast}
    took = {stage.name: stage.seconds for stage in result.stages}
    assert list(expected) == ["prune", "refit", "retrain", "measure"]
    for stage in ("prune", "retrain"):  # other work on the machine comes and goes
        assert expected[stage] / 5 < took[stage] < 5 * expected[stage]
    assert any(note.startswith("This will take about ") for note in result.simplified)
    assert oa.Report(**json_free(tmp_path / "out")).forecast == result.forecast


@pytest.mark.slow
@needs_training
def test_what_comes_behind_the_trainings_is_foreseen_as_well(digits: DemoFiles, options: dict[str, Any]) -> None:
    recipe = oa.Recipe(epochs=2, retrain_epochs=2, batch_size=64, refit=True, held_out=0.3)
    result = oa.compress(digits.model, int8=True, fp16=True, **{**options, "recipe": recipe})
    expected = {stage.name: stage.seconds for stage in result.forecast}
    took = {stage.name: stage.seconds for stage in result.stages}
    assert list(expected) == ["prune", "refit", "retrain", "quantise", "store in 16 bits", "measure"]
    assert [name for name in took if name in expected] == list(expected)
    for name in expected:  # other work on the machine comes and goes
        assert took[name] / 5 - 0.5 < expected[name] < 5 * took[name] + 2.0, name


@pytest.mark.slow
@needs_training
def test_a_calibration_that_learns_afterwards_says_for_how_long(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"calibrate": few_digits, "budget": {"params": 0.5}, "bench": False, "int8": True}
    given["recipe"] = {"retrain_epochs": 20, "batch_size": 32}
    found = oa.forecast(digits.model, **given)
    assert found.retrain_epochs == 20
    expected = {stage.name: stage.seconds for stage in found.stages}
    assert list(expected) == ["calibrate", "retrain", "quantise", "measure"]
    took = {stage.name: stage.seconds for stage in oa.compress(digits.model, **given).stages}
    assert took["retrain"] / 5 < expected["retrain"] < 5 * took["retrain"]


def json_free(folder: Path) -> dict[str, Any]:
    from onnxadmm.report.reading import read_report

    report = read_report(folder)
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


@needs_training
def test_what_is_measured_changes_nothing(
    digits: DemoFiles, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = oa.Budget(params=0.5, connections=0.5)
    one = oa.compress(digits.model, **{**options, "budget": budget})
    monkeypatch.setattr(Compression, "foresee", lambda self: None)
    other = oa.compress(digits.model, **{**options, "budget": budget})
    assert one.forecast
    assert not other.forecast
    assert one.history == other.history
    assert one.plan.to_json() == other.plan.to_json()
    for name, array in oa.weights(one.model).items():
        np.testing.assert_array_equal(array, oa.weights(other.model)[name])


@needs_training
def test_a_dry_run_writes_nothing_and_says_what_would_come(digits: DemoFiles, command: Command, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "model.onnx").write_bytes(b"an older result")
    before = snapshot(tmp_path)
    words = ("--data", digits.training, "--scale", 1 / 16, "--params", "0.5", "--epochs", 2, "--retrain-epochs", 3)
    for out in ("old", "new"):
        ran = command("compress", digits.model, *words, "--out", tmp_path / out, "--dry-run")
        assert ran.status == 0, ran
        assert re.match(r"This will take about .*prune .* \(2 epochs\), refit .*, retrain .* \(3 epochs\)", ran.stdout)
    ran = command("compress", digits.model, *words, "--out", tmp_path / "new", "--dry-run", "--json")
    document = json.loads(ran.stdout)
    assert document["seconds"] == pytest.approx(sum(stage["seconds"] for stage in document["stages"]))
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_calibration_is_foreseen_by_its_own_figures(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    found = oa.forecast(
        digits.model, calibrate=few_digits[0], budget={"params": 0.5}, out=tmp_path / "out", bench=False
    )
    assert [stage.name for stage in found.stages] == ["calibrate", "measure"]
    assert found.seconds > 0 < found.memory_bytes
    assert (found.epochs, found.retrain_epochs) == (0, 0)
    assert not list(tmp_path.iterdir())


@needs_training
def test_epochs_are_shortened_and_a_resumed_run_keeps_them(
    digits: DemoFiles, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "measured_paces", lambda *given, **named: PACES)
    # 81 s are given out: 64 s for what is chosen, which leaves 17 s for reading; the next longer one takes 88 s.
    options = {**options, "max_minutes": 1.5, "recipe": replace(RECIPE, epochs=6, retrain_epochs=8)}
    whole = oa.compress(digits.model, out=tmp_path / "whole", **options)
    fit = {name: whole.options[name] for name in ("epochs", "retrain_epochs", "max_minutes")}
    assert fit == {"epochs": 2, "retrain_epochs": 3, "max_minutes": 1.5}
    rows = [row.stage for row in whole.history]
    assert rows == ["prune"] * 16 + ["retrain"] * 3
    # What makes the run again names the epochs, not the time.
    assert "--epochs 2 --retrain-epochs 3" in whole.command
    assert "--max-minutes" not in whole.command

    def unasked(*given: object, **named: object) -> Paces:
        raise AssertionError("measured anew")

    for at in (3, 17):
        out = tmp_path / f"at{at}"
        monkeypatch.setattr(forecast, "measured_paces", lambda *given, **named: PACES)
        with pytest.raises(KeyboardInterrupt):
            oa.compress(digits.model, out=out, progress=Interrupted(at), **options)
        monkeypatch.setattr(forecast, "measured_paces", unasked)
        with pytest.raises(CheckpointError, match="--max-minutes"):
            oa.compress(digits.model, out=out, resume=True, **{**options, "max_minutes": 2})
        resumed = oa.compress(digits.model, out=out, resume=True, **options)
        assert resumed.history == whole.history
        for name in ("model.onnx", "plan.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@needs_training
@pytest.mark.parametrize(
    ("method", "least"),
    [("admm", "1 epoch of pruning and 1 of retraining"), ("auto", "the calibration and 1 epoch of retraining")],
)
def test_a_time_that_nothing_fits_is_refused_before_it_trains(
    method: str, least: str, digits: DemoFiles, command: Command, tmp_path: Path
) -> None:
    words = ("--data", digits.training, "--scale", 1 / 16, "--params", "0.5", "--out", tmp_path / "out")
    ran = command("compress", digits.model, *words, "--max-minutes", "0.01", "--method", method)
    assert ran.status == 2
    told = " ".join(ran.stderr.split())
    assert f"--max-minutes 0.01: expected time for {least}" in told
    assert ("--effort quick" in told) == (method == "auto")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_minutes": 0}, "minutes above 0"),
        ({"max_minutes": 3, "quick": True}, "without --quick"),
        ({"quick": True, "calibrate": True}, "--quick: expected a run that trains"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(
    changes: dict[str, Any], sentence: str, digits: DemoFiles, few_digits: Digits
) -> None:
    source = {"calibrate" if changes.pop("calibrate", False) else "data": few_digits[0]}
    with pytest.raises(OptionError, match=sentence):
        oa.compress(digits.model, budget={"params": 0.5}, **source, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [{"quick": True}, {"max_minutes": 3}])
def test_a_sweep_and_a_search_have_no_time_to_fit(
    asked: dict[str, Any], digits: DemoFiles, few_digits: Digits, tmp_path: Path, command: Command
) -> None:
    with pytest.raises(OptionError, match="found a sweep or a search"):
        oa.sweep(digits.model, data=few_digits, amounts={"params": [0.5, 0.3]}, out=tmp_path / "out", **asked)
    words = ("--data", digits.training, "--scale", 1 / 16, "--max-drop", 1, "--out", tmp_path / "out")
    for option, found in (("--quick", "a sweep or a search"), ("--dry-run", "a search with --max-drop")):
        ran = command("compress", digits.model, *words, option)
        assert ran.status == 2
        assert f"found {found}" in " ".join(ran.stderr.split())
    assert not (tmp_path / "out").exists()


@needs_training
@pytest.mark.parametrize("method", ["admm", "auto"])
def test_quick_is_five_minutes(method: str, digits: DemoFiles, options: dict[str, Any]) -> None:
    found = oa.forecast(digits.model, quick=True, **{**options, "recipe": {"batch_size": 64, "method": method}})
    assert (found.epochs >= 1) == (method == "admm")
    assert found.retrain_epochs >= 1
    assert found.seconds <= 300


@needs_training
def test_a_loss_that_is_not_finite_is_left_to_the_training(
    digits: DemoFiles, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*given: object, **named: object) -> Paces:
        raise DivergedError("a step", expected="a finite loss", found="NaN", way_out="none")

    monkeypatch.setattr(forecast, "measured_paces", diverges)
    assert oa.compress(digits.model, **options).forecast == ()
    for call in (oa.forecast, oa.compress):
        with pytest.raises(DivergedError):
            call(digits.model, max_minutes=3, **options)
    with pytest.raises(DivergedError):
        oa.forecast(digits.model, **options)


@pytest.mark.slow
@needs_training
def test_a_rehearsal_times_no_choice_and_corrects_no_latency(
    digits: DemoFiles, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def touched(*_: object) -> float:
        raise AssertionError("what is thrown away was timed")

    monkeypatch.setattr(LatencyCost, "measure", touched)
    monkeypatch.setattr(LatencyCost, "correct", touched)
    with np.load(digits.training) as archive:
        data = archive["images"][:640, None].astype(np.float32) / 16, archive["labels"][:640]
    found = oa.forecast(digits.model, data=data, budget={"latency": 0.5}, bench=False, bench_threads=1)
    assert found.seconds > 0
