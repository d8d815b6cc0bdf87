"""Sweeps: points that share what they can, side by side, resumed, and chosen from."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, CheckpointError, OptionError, OutputError
from onnxadmm.output import OutputFolder
from onnxadmm.points import Points
from onnxadmm.report.reading import read_report
from onnxadmm.report.tradeoff import read_trade_off
from onnxadmm.run.calibrations import Calibration
from onnxadmm.run.shared import Shared
from onnxadmm.run.steps import Compression, Finished
from tests.shared import needs_training

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.usefixtures("quick_latency")]

LIMITS = oa.Limits(round_to=1)
QUICK = oa.CalibrationOptions(effort="quick")
LABELLED = (np.zeros((64, 1, 8, 8), np.float32), np.zeros(64, np.int64))


def swept(digits: DemoFiles, samples: Any, out: Path, **named: Any) -> oa.TradeOff:
    given: dict[str, Any] = {"amounts": {"macs": [0.4, 0.8, 0.6]}, "limits": LIMITS, "bench": False}
    if "data" not in named:
        given |= {"calibrate": samples, "calibration": QUICK}
    return oa.sweep(digits.model, out=out, **{**given, **named})


@pytest.mark.parametrize(
    ("amounts", "found"),
    [
        ({}, "found none"),
        ({"macs": [0.5, 0.2], "params": [0.3, 0.1]}, "found macs, params"),
        ({"time": [0.5, 0.2]}, "found time"),
        ({"macs": [0.5]}, "found 0.5"),
        ({"macs": [0.5, "50%"]}, "found 0.5, 50%"),
        ({"macs": [0.5, "20K"]}, "found 20K, 0.5"),
        ({"macs": [0.5, "x"]}, "found 'x'"),
    ],
)
def test_what_is_no_sweep_is_refused(amounts: Any, found: str, digits: DemoFiles, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=found):
        oa.sweep(digits.model, calibrate="none", amounts=amounts, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_kind_is_swept_or_for_all(digits: DemoFiles, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--macs: expected it in the sweep, or for all, found both"):
        oa.sweep(
            digits.model, calibrate="none", amounts={"macs": [0.5, 0.4]}, budget={"macs": 0.3}, out=tmp_path / "out"
        )


@pytest.mark.slow
def test_calibrated_points_stand_side_by_side_and_groups_are_measured_once(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    tell = Calibration._tell

    def counted(self: Calibration, *given: Any) -> None:
        measured.append(len(self.measured))
        tell(self, *given)

    monkeypatch.setattr(Calibration, "_tell", counted)
    found = swept(digits, few_digits, tmp_path / "out")
    assert [point.asked for point in found.points] == ["0.8", "0.6", "0.4"]
    assert measured[0] == 0
    assert measured[1] == measured[2] > 0
    macs = [point.macs for point in found.points]
    assert macs == sorted(macs, reverse=True)
    assert all(point.macs <= float(point.asked) * found.original.macs for point in found.points)
    for point in found.points:
        alone = oa.compress(
            digits.model,
            calibrate=few_digits,
            calibration=QUICK,
            budget=oa.Budget(macs=float(point.asked)),
            limits=LIMITS,
            bench=False,
        )
        plan = oa.Plan.read(tmp_path / "out" / point.folder / "plan.json")
        assert plan == alone.plan  # sharing changes nothing
    assert read_trade_off(tmp_path / "out") == found
    assert not any(point.speedups for point in found.points)
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    assert [row["asked"] for row in rows] == ["", "0.8", "0.6", "0.4"]
    assert float(rows[1]["heldout"]) == found.points[0].heldout.value  # type: ignore[union-attr]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'href="macs-0.6/report.html"' in page
    assert "chart-reached" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("macs-0.4", "macs-0.6", "macs-0.8", "report.html", "sweep.csv", "sweep.json")
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"--macs 0\.1"),
        ({"jobs": 2}, r"--macs 0\.1"),
        ({"budget": {"params": 0.1}}, r"--params 0\.1"),
        ({"calibrate": "none", "amounts": {"macs": [0.9, 0.7]}, "limits": LIMITS}, r"--macs: expected at least 0\.75"),
    ],
)
def test_a_budget_out_of_reach_is_refused_before_the_others_are_made(
    given: dict[str, Any], told: str, digits: DemoFiles, few_digits: Samples, tmp_path: Path
) -> None:
    given = {"amounts": {"macs": [0.9, 0.1]}, "limits": oa.Limits(round_to=1, max_ratio=0.5), **given}
    with pytest.raises((BudgetError, OptionError), match=told):
        swept(digits, few_digits, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_is_done_is_left_alone_only_where_it_was_the_same(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, given = tmp_path / "out", {"amounts": {"macs": [0.8, 0.6]}}
    whole = swept(digits, few_digits, out, **given)
    monkeypatch.setattr(Compression, "finish", None)  # nothing is made from here on
    assert swept(digits, few_digits, out, resume=True, **given) == whole
    other = tmp_path / "other.onnx"
    weights = oa.weights(oa.load(digits.model))
    oa.save(oa.with_weights(digits.model, {name: 2 * array for name, array in weights.items()}), other)
    for changed, told in (
        ({"samples": (few_digits[0][:300], few_digits[1][:300])}, "--data: expected the data with digest"),
        ({"seed": 7}, "--seed: expected 0, as in .*macs-0.8, found 7"),
        ({"limits": oa.Limits(round_to=2)}, "--round-to: expected 1"),
        ({"budget": {"params": 0.9}}, "--params: expected none"),
        ({"int8": True}, "--int8: expected false"),
        ({"test": few_digits}, "--test: expected none"),
        ({"bench": True}, "--bench: expected false"),
    ):
        asked: dict[str, Any] = {"samples": few_digits, **given, **changed}
        with pytest.raises(CheckpointError, match=told):
            swept(digits, out=out, resume=True, **asked)
    with pytest.raises(CheckpointError, match="the model: expected the one with sha256"):
        swept(replace(digits, model=other), few_digits, out, resume=True, **given)
    assert read_trade_off(out) == whole


@pytest.mark.slow
def test_a_sweep_that_was_interrupted_goes_on(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept(digits, few_digits, tmp_path / "whole")
    finish, calls, heard = Compression.finish, [], list[object]()

    def once(self: Compression, folder: OutputFolder | None) -> Finished:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finish(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Compression, "finish", once)
        with pytest.raises(KeyboardInterrupt):
            swept(digits, few_digits, tmp_path / "out", progress=heard.append)
    assert oa.Note(f"In {tmp_path / 'out'} is what has been done so far; --resume goes on from there.") in heard
    with pytest.raises(OutputError, match=r"found macs-0\.8, sweep\.json; go on with --resume"):
        swept(digits, few_digits, tmp_path / "out")
    assert [point.asked for point in read_trade_off(tmp_path / "out").points] == ["0.8"]
    assert (tmp_path / "out" / "shared.npz").exists()
    kept = (tmp_path / "out" / "macs-0.8" / "model.onnx").stat().st_mtime_ns
    found = swept(digits, few_digits, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "macs-0.8" / "model.onnx").stat().st_mtime_ns == kept
    assert [(point.asked, point.macs, point.heldout) for point in found.points] == [
        (point.asked, point.macs, point.heldout) for point in whole.points
    ]
    assert not (tmp_path / "out" / "shared.npz").exists()


@pytest.mark.slow
def test_processes_come_to_the_same_results(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    alone = swept(digits, few_digits, tmp_path / "alone")
    beside = swept(digits, few_digits, tmp_path / "beside", jobs=2, progress=heard.append)
    seconds = {"seconds": 0.0}
    assert [replace(point, **seconds) for point in beside.points] == [
        replace(point, **seconds) for point in alone.points
    ]
    for point in alone.points:
        for name in ("model.onnx", "plan.json"):
            one, other = ((tmp_path / run / point.folder / name).read_bytes() for run in ("alone", "beside"))
            assert one == other
    assert sorted(path.name for path in (tmp_path / "beside").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )
    assert oa.Stage("2 budgets, 2 at a time", 2) in heard
    assert heard.count(oa.Advance(1)) >= 2
    # What is done is left alone, and groups are measured again where what was passed on is gone.
    (tmp_path / "beside" / "macs-0.4" / "report.json").unlink()
    again = swept(digits, few_digits, tmp_path / "beside", jobs=2, resume=True, force=True)
    assert [replace(point, **seconds) for point in again.points] == [
        replace(point, **seconds) for point in alone.points
    ]


@pytest.mark.slow
def test_an_error_in_a_process_is_the_error_of_the_sweep(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "macs-0.4").touch()
    with pytest.raises(OutputError, match=r"macs-0\.4: expected a folder, found a file"):
        swept(digits, few_digits, tmp_path / "out", jobs=3)
    assert [point.asked for point in read_trade_off(tmp_path / "out").points] == ["0.8", "0.6"]


def refused(asked: dict[str, Any], told: str, digits: DemoFiles, folder: Path) -> None:
    """A sweep is refused with these words, and nothing is written; it is calibrated where it has no data."""
    model = oa.load(digits.model) if asked.pop("model", False) else digits.model
    if "data" not in asked:
        asked.setdefault("calibrate", "none")
    with pytest.raises(OptionError, match=told):
        oa.sweep(model, out=folder / "out", **asked)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"jobs": 0}, "--jobs 0: expected at least 1"),
        ({"data": "x.npz"}, "found a training, in which each network goes on from the one before"),
        ({"bench": True}, "expected nothing that is timed.*--no-bench"),
        ({"amounts": {"latency": [0.8, 0.6]}}, "found a budget of latency"),
        ({"budget": {"latency": 0.5}}, "found a budget of latency"),
        ({"model": True}, "a model in a file"),
        ({"calibrate": (each for each in "abc")}, "expected paths, arrays .* found cannot pickle 'generator' object"),
        ({"recipe": {"metric": lambda outputs, labels: 1.0}}, "--jobs: expected paths"),
        (
            {"recipe": {"cluster": "local:2"}},
            "--jobs 2: expected processes of this machine alone, found --cluster local:2",
        ),
    ],
)
def test_processes_that_are_of_no_use_are_refused(
    given: dict[str, Any], told: str, digits: DemoFiles, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"amounts": {"macs": [0.8, 0.6]}, "jobs": 2, "bench": False, **given}
    refused(asked, told, digits, tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bench": True}, "--cluster local:2: expected nothing that is timed.*--no-bench"),
        ({"amounts": {"latency": [0.8, 0.6]}}, "--cluster local:2: .* found a budget of latency"),
        ({"model": True}, "--cluster local:2: expected a model in a file"),
        ({"calibrate": (each for each in "abc")}, "--cluster: expected paths, arrays"),
        ({"custom_ops": ["scale.so"]}, "--cluster: expected operators that onnxadmm knows.*found --custom-ops"),
        ({"data": "x.npz", "custom_ops": ["scale.so"]}, "found --custom-ops"),
        ({"recipe": {"cluster": "two"}}, "expected auto"),
    ],
)
def test_machines_that_are_of_no_use_are_refused(
    given: dict[str, Any], told: str, digits: DemoFiles, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"amounts": {"macs": [0.8, 0.6]}, "bench": False, "recipe": {"cluster": "local:2"}, **given}
    refused(asked, told, digits, tmp_path)


@pytest.mark.slow
def test_what_another_run_left_is_not_taken_up(digits: DemoFiles, few_digits: Samples, tmp_path: Path) -> None:
    shared = Shared()
    given: dict[str, Any] = {"calibration": QUICK, "limits": LIMITS, "bench": False, "shared": shared}
    oa.compress(digits.model, calibrate=few_digits, budget=oa.Budget(macs=0.7), **given)
    oa.compress(digits.model, calibrate=few_digits, budget=oa.Budget(params=0.5), **given)
    fewer = (few_digits[0][:300], few_digits[1][:300])
    with pytest.raises(CheckpointError, match="--data"):
        oa.compress(digits.model, calibrate=fewer, budget=oa.Budget(macs=0.5), **given)
    given["limits"] = oa.Limits(round_to=2)
    with pytest.raises(CheckpointError, match="--round-to"):
        oa.compress(digits.model, calibrate=few_digits, budget=oa.Budget(macs=0.5), **given)


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({"data": LABELLED}, "admm"),
        ({"data": LABELLED, "recipe": {"retrain_epochs": 1}}, "admm"),
        ({"data": LABELLED, "recipe": oa.Recipe(method="calibrated")}, "calibrated"),
        ({"calibrate": LABELLED}, "auto"),
    ],
)
def test_networks_that_are_trained_go_on_from_each_other_unless_the_method_is_named(
    given: dict[str, Any], method: str, digits: DemoFiles, tmp_path: Path
) -> None:
    with Points(digits.model, "params", tmp_path, common=None, force=False, resume=False, options=given) as points:
        assert points._options.get("recipe", oa.Recipe()).method == method


@pytest.mark.slow
@needs_training
def test_the_next_training_begins_with_the_network_as_retrained(digits: DemoFiles, few_digits: Samples) -> None:
    shared = Shared()
    given: dict[str, Any] = {"recipe": oa.Recipe(epochs=2, retrain_epochs=2, batch_size=32), "bench": False}
    made = oa.compress(digits.model, data=few_digits, budget={"params": 0.3}, shared=shared, **given)
    assert shared.pruned is not None
    whole = oa.with_weights(oa.load(digits.model), {**oa.weights(oa.load(digits.model)), **shared.pruned.weights})
    assert oa.verify(whole, made.model, made.plan).passed


@needs_training
def test_data_are_read_once_where_they_are_the_same(digits: DemoFiles, few_digits: Samples) -> None:
    shared = Shared()
    given: dict[str, Any] = {"recipe": oa.Recipe(epochs=1, retrain_epochs=0, batch_size=32), "bench": False}
    given |= {"shared": shared, "limits": LIMITS}
    oa.compress(digits.model, data=few_digits, budget={"params": 0.5}, **given)
    first = shared.reading
    oa.compress(digits.model, data=few_digits, budget={"params": 0.4}, **given)
    assert shared.reading is first
    other = (few_digits[0][::-1].copy(), few_digits[1][::-1].copy())
    with pytest.raises(CheckpointError, match="--data"):
        oa.compress(digits.model, data=other, budget={"params": 0.3}, **given)
    assert shared.reading is not first


@pytest.mark.slow
@needs_training
def test_trained_points_go_on_from_each_other(digits: DemoFiles, few_digits: Samples, tmp_path: Path) -> None:
    found = swept(
        digits,
        None,
        tmp_path / "out",
        data=few_digits,
        amounts={"params": ["50%", "30%", "15%"]},
        recipe=oa.Recipe(epochs=8, retrain_epochs=3, batch_size=32),
    )
    plans = [oa.Plan.read(tmp_path / "out" / point.folder / "plan.json") for point in found.points]
    assert [point.folder for point in found.points] == ["params-50percent", "params-30percent", "params-15percent"]
    for larger, smaller in itertools.pairwise(plans):
        for before, after in zip(larger.groups, smaller.groups, strict=True):
            assert set(before.removed) <= set(after.removed)
    reports = [read_report(tmp_path / "out" / point.folder) for point in found.points]
    epochs = [
        [max(row.epoch for row in report.history if row.stage == stage) for report in reports]
        for stage in ("prune", "retrain")
    ]
    # log(50/30) and log(30/15) of log(50/15), of 0.8 times 8; and half of 3.
    assert epochs == [[8, 3, 4], [3, 2, 2]]
    # A step is tried and timed once, and what is expected of the others follows from that.
    stages = [{stage.name for stage in report.stages} for report in reports]
    assert [{"preflight", "forecast"} & each for each in stages] == [{"preflight", "forecast"}, set(), set()]
    expected = [{stage.name: stage.seconds for stage in report.forecast} for report in reports]
    assert all(each.keys() == {"prune", "refit", "retrain", "measure"} for each in expected)
    # Which of the later ones takes longer hangs on what was timed; half of the epochs is less however it was.
    assert expected[0]["prune"] > max(expected[1]["prune"], expected[2]["prune"])
    # The first begins with the original, as it would alone; the others are those of the sweep.
    assert reports[0].command.startswith("onnxadmm compress ")
    assert "--params 50% " in reports[0].command
    assert reports[1].command == reports[2].command == found.command
    assert found.command.startswith("onnxadmm sweep ")
    assert "--params 50%,30%,15% " in found.command
    notes = [[note for note in report.simplified if "samples" in note] for report in reports]
    assert notes[0] == notes[1] == notes[2]
    # What is said of the data is said of each; what a point has lost is its own, and hangs on the machine.
    of_data = [[said for said in report.warnings if "accuracy fell" not in said] for report in reports]
    assert of_data[0] == of_data[1] == of_data[2]
    for point, plan in zip(found.points, plans, strict=True):
        assert oa.verify(digits.model, tmp_path / "out" / point.folder / "model.onnx", plan).retrained
