"""``demo``, as it is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnxadmm import demo
from onnxadmm.demo import require_bar
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.report.reading import read_report
from onnxadmm.run.recipe import Recipe
from tests.conftest import Command, run_command


@pytest.mark.slow
def test_demo_runs_from_the_installation_and_is_held_to_its_bar(
    tmp_path: Path, command: Command, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough to keep the budget, too little to learn from, and nothing made up for: the demo must notice.
    monkeypatch.setattr(demo, "_RECIPE", Recipe(epochs=1, retrain_epochs=0, batch_size=64, refit=False))
    monkeypatch.setattr(demo, "_SAMPLES", 64)
    ran = command("demo", "--out", tmp_path / "demo")
    assert ran.status == 1
    assert "Test accuracy" in ran.stdout
    assert "points lost" in ran.stderr
    report = read_report(tmp_path / "demo" / "report.json")
    with pytest.raises(OnnxAdmmError, match="points lost"):
        require_bar(report)


@pytest.mark.slow
def test_demo_meets_its_bar(tmp_path: Path, quick_latency: None) -> None:
    ran = run_command("demo", "--out", tmp_path / "demo")
    assert ran.status == 0, ran
    lines = [line.strip() for line in ran.stdout.splitlines()]
    assert [line.split("  ")[0] for line in lines if line.startswith(("original", "with"))] == [
        "original",
        "with training",
        "without training",
    ]
    report = read_report(tmp_path / "demo" / "report.json")
    assert report.before.parameters >= 5 * report.after.parameters
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert report.before.macs >= 2 * report.after.macs
    assert report.before.test is not None
    assert report.after.test is not None
    assert report.after.test.value >= report.before.test.value - 0.01
    assert run_command("demo", "--out", tmp_path / "demo").status == 2


@pytest.mark.slow
def test_demo_without_the_engine_shows_what_needs_none(
    tmp_path: Path, command: Command, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "unavailable_reason", lambda: "no engine")
    ran = command("demo", "--out", tmp_path / "demo")
    assert ran.status == 0, ran
    assert "Shown without training alone: no engine" in ran.stderr
    assert "with training" not in ran.stdout
    assert "without training" in ran.stdout
    report = read_report(tmp_path / "demo" / "report.json")
    assert report.before.test is not None
    assert report.after.test is not None
    assert report.after.test.value >= report.before.test.value - 0.02
    assert report.before.parameters >= 9.9 * report.after.parameters
    # The bar notices a network that lost more.
    worse = replace(report, after=replace(report.after, test=replace(report.after.test, value=0.9)))
    with pytest.raises(OnnxAdmmError, match="at most 2 points of test accuracy lost without training"):
        require_bar(worse)
