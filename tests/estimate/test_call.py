"""Estimates of whole runs: their form, the command they name, and no file or process left behind."""

import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.cli import compress as compress_verb
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DataError
from onnxadmm.estimate import call
from onnxadmm.progress import Silent
from onnxadmm.report.codec import decode, dumps, encode
from onnxadmm.runtime.cores import usable_cores
from tests.conftest import Command
from tests.shared import needs_training

pytestmark = [needs_training, pytest.mark.usefixtures("quick_latency")]

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(epochs=3, retrain_epochs=4, batch_size=64)
WORDS = ("--scale", 1 / 16, "--params", "0.5", "--batch-size", 64, "--no-bench")
STAGES = ["start", "analyse", "read data", "preflight", "forecast", "prune", "refit"]
STAGES += ["shrink and verify", "retrain", "measure", "write"]


@pytest.fixture(scope="module")
def found(digits: DemoFiles, few_digits: Digits) -> oa.Estimate:
    """An estimate in a process of its own, with a price."""
    return oa.estimate(
        digits.model, data=few_digits, budget={"params": 0.5}, recipe=RECIPE, bench=False, price_per_core_hour=3.6
    )


def test_an_estimate_has_every_stage_of_the_run_and_ends_with_its_files(found: oa.Estimate) -> None:
    assert [stage.name for stage in found.stages] == STAGES
    assert all(stage.seconds > 0 for stage in found.stages)
    assert found.seconds == pytest.approx(sum(stage.seconds for stage in found.stages))
    epochs = {stage.name: stage.epochs for stage in found.stages if stage.epochs}
    assert epochs == {"prune": 3, "retrain": 4}
    assert (found.epochs, found.retrain_epochs, found.samples, found.batches) == (3, 4, 640, 9)
    assert (found.cores, found.machines, found.workers) == (usable_cores(), 1, (1, 1))
    assert found.traffic_bytes == 0
    assert not found.notes


def test_memory_disk_and_costs_are_told_by_stage(found: oa.Estimate, digits: DemoFiles) -> None:
    stages = {stage.name: stage for stage in found.stages}
    for stage in found.stages:
        assert stage.cost == pytest.approx(stage.seconds * 3.6 / 3600 * usable_cores())
    assert found.cost == pytest.approx(sum(stage.cost or 0.0 for stage in found.stages))
    # A Python with numpy and onnxruntime in it, and not much beside.
    assert 50e6 < stages["prune"].memory_bytes < 2e9
    assert found.memory_bytes == max(stage.memory_bytes for stage in found.stages)
    size = digits.model.stat().st_size
    assert stages["prune"].disk_bytes > 2 * size
    assert 0 < stages["write"].disk_bytes < 4 * size
    assert found.disk_bytes == stages["write"].disk_bytes + stages["prune"].disk_bytes


def test_rates_are_measured(found: oa.Estimate) -> None:
    names = {"samples read", "samples evaluated", "samples trained while pruning", "samples trained while retraining"}
    names |= {"samples answered"}
    assert set(found.rates) == names
    assert all(rate > 0 for rate in found.rates.values())


def test_an_estimate_is_json_and_comes_back_from_it(found: oa.Estimate) -> None:
    assert decode(oa.Estimate, json.loads(dumps(encode(found)))) == found


def test_the_command_that_is_named_makes_that_run(found: oa.Estimate) -> None:
    words = shlex.split(found.command)
    assert words[:2] == ["onnxadmm", "compress"]
    recipe = parsed(words[2:])["recipe"]
    assert (recipe.epochs, recipe.retrain_epochs, recipe.batch_size) == (3, 4, 64)


def parsed(words: list[str]) -> dict[str, Any]:
    """What ``compress`` is given by the words of its verb."""
    import typer

    from onnxadmm.cli.app import app

    given: dict[str, Any] = {}
    verb = typer.main.get_command(app).commands["compress"]  # type: ignore[attr-defined]
    context = verb.make_context("compress", list(words))
    given.update(context.params)
    return compress_verb.arguments({**given, "quiet": True})


def test_the_command_line_leaves_nothing_behind_and_names_a_command_that_it_can_read(
    digits: DemoFiles, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ("estimate", digits.model, "--data", digits.training, *WORDS, "--hours", 2)
    ran = command(*words, "--epochs", 2, "--retrain-epochs", 3, "--cache", "cache")
    assert ran.status == 0, ran
    assert not list((tmp_path / "here").iterdir())
    assert not list((tmp_path / "temporary").iterdir())
    lines = ran.stdout.strip().splitlines()
    assert re.search(r"prune +[\d.]+ s +2 ", ran.stdout)
    made = shlex.split(lines[-1])
    assert made[:2] == ["onnxadmm", "compress"]
    asked = parsed(made[2:])
    assert (asked["recipe"].epochs, asked["recipe"].retrain_epochs) == (2, 3)
    assert asked["preprocessing"].cache == "cache"
    assert str(asked["out"]) == "out"


def test_the_document_of_the_command_line_has_the_totals(digits: DemoFiles, command: Command) -> None:
    words = ("--epochs", 1, "--retrain-epochs", 0, "--json", "--quiet")
    ran = command("estimate", digits.model, "--data", digits.training, *WORDS, *words)
    assert ran.status == 0, ran
    document = json.loads(ran.stdout)
    assert document["seconds"] == pytest.approx(sum(stage["seconds"] for stage in document["stages"]))
    assert document["cost"] is None
    assert "retrain" not in {stage["name"] for stage in document["stages"]}


def test_too_few_hours_are_refused_with_status_3_and_what_they_would_have_to_be(
    digits: DemoFiles, command: Command
) -> None:
    words = ("estimate", digits.model, "--data", digits.training, *WORDS)
    ran = command(*words, "--hours", "0.00001")
    assert ran.status == 3
    sentence = " ".join(ran.stderr.split())
    assert "--hours 1e-05: expected time for 1 epoch of pruning and 1 of retraining, which is the least" in sentence
    named = re.search(r"allow ([\d.e-]+) hours", sentence)
    assert named is not None
    assert 0 < float(named[1]) < 1


def test_an_error_of_the_child_is_the_error_of_the_call(digits: DemoFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        oa.estimate(digits.model, data=tmp_path / "nowhere.npz", budget={"params": 0.5})


def test_a_model_in_memory_is_one_as_well(digits: DemoFiles, few_digits: Digits) -> None:
    found = oa.estimate(oa.load(digits.model), calibrate=few_digits[0], budget={"params": 0.5}, bench=False)
    assert found.command.startswith("onnxadmm compress MODEL --calibrate CALIBRATE --out out ")


def test_whoever_is_interrupted_leaves_no_process_and_no_file_behind(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupts(Silent):
        def stage(self, name: str, *, total: int | None = None) -> None:
            if name == "preflight":
                raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []
    start = call.start

    def kept(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(start(*given, **named))
        return started[-1]

    monkeypatch.setattr(call, "start", kept)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        oa.estimate(digits.model, data=few_digits, budget={"params": 0.5}, recipe=RECIPE, progress=Interrupts())
    assert started[0].poll() is not None
    assert not list(tmp_path.iterdir())


def test_whoever_listens_is_told(digits: DemoFiles, few_digits: Digits) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.told: list[str] = []

        def stage(self, name: str, *, total: int | None = None) -> None:
            self.told.append(name)

        def note(self, text: str) -> None:
            self.told.append(text)

    heard = Heard()
    oa.estimate(digits.model, calibrate=few_digits[0], budget={"params": 0.5}, bench=False, progress=heard)
    assert "analyse" in heard.told
    assert any("calibration" in sentence.lower() for sentence in heard.told)


def test_a_calibration_is_estimated_by_its_own_expectation(digits: DemoFiles, few_digits: Digits) -> None:
    found = oa.estimate(digits.model, calibrate=few_digits[0], budget={"params": 0.5}, bench=False)
    names = [stage.name for stage in found.stages]
    assert names == ["start", "analyse", "read data", "forecast", "calibrate", "shrink and verify", "measure", "write"]
    assert (found.epochs, found.retrain_epochs) == (0, 0)
    assert "--calibrate" in found.command


@pytest.mark.slow
def test_an_estimate_and_its_run_agree_within_a_factor(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    recipe = oa.Recipe(epochs=8, retrain_epochs=20, batch_size=64)
    given: dict[str, Any] = {"data": few_digits, "budget": {"params": 0.5}, "recipe": recipe, "bench": False}
    found = oa.estimate(digits.model, **given)
    took = {stage.name: stage.seconds for stage in oa.compress(digits.model, out=tmp_path / "out", **given).stages}
    expected = {stage.name: stage.seconds for stage in found.stages}
    assert set(took) <= set(expected)
    for name, seconds in took.items():  # other work on the machine comes and goes
        assert expected[name] / 10 - 1 < seconds < 10 * expected[name] + 5, name
