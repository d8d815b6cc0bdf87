"""Sweeps and searches over machines: one crew for all points, and the results of those without machines."""

import hashlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import InputError, OptionError
from onnxadmm.progress import Iteration, Silent
from onnxadmm.report.reading import read_report
from onnxadmm.report.tradeoff import read_trade_off
from onnxadmm.search import _search
from tests.shared import needs_training

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.usefixtures("ray_here"), needs_training]

SHORT = oa.Recipe(epochs=2, retrain_epochs=2, batch_size=64, workers=1, local_steps=4)
LIMITS = oa.Limits(round_to=1)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RayCrew, bool]]:
    """Every crew that is told what it opens, and whether that is another thing than before."""
    said: list[tuple[RayCrew, bool]] = []
    settle = RayCrew.settle

    def heard(self: RayCrew, opening: Any) -> bool:
        said.append((self, settle(self, opening)))
        return said[-1][1]

    monkeypatch.setattr(RayCrew, "settle", heard)
    return said


def same_files(found: oa.TradeOff, one: Path, other: Path) -> None:
    """The points of a sweep are the same in both of its folders, to the bit."""
    for point in found.points:
        for name in ("model.onnx", "plan.json"):
            ours, theirs = ((folder / point.folder / name).read_bytes() for folder in (one, other))
            assert hashlib.sha256(ours).digest() == hashlib.sha256(theirs).digest()  # pytest would look for the place


@pytest.mark.slow
def test_a_trained_sweep_over_one_machine_is_one_without_to_the_bit(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, settled: list[tuple[RayCrew, bool]]
) -> None:
    def swept(name: str, cluster: str | None) -> oa.TradeOff:
        recipe = replace(SHORT, cluster=cluster)
        amounts = {"params": [0.6, 0.4, 0.2]}
        out = tmp_path / name
        return oa.sweep(digits.model, data=few_digits, amounts=amounts, out=out, recipe=recipe, bench=False)

    found = swept("apart", "local:1")
    assert len({id(crew) for crew, _ in settled}) == 1
    assert [other for _, other in settled] == [True, False, False]  # data are read there once
    swept("alone", None)
    same_files(found, tmp_path / "apart", tmp_path / "alone")
    assert "--cluster local:1" in found.command
    assert "--params 0.6,0.4,0.2" in found.command


class Interrupted(Silent):
    """Ends a sweep in the midst of its second point."""

    def __init__(self) -> None:
        self._retrained = False

    def iteration(self, row: Iteration) -> None:
        if self._retrained and row.stage == "prune" and row.iteration > 1:
            raise KeyboardInterrupt
        self._retrained |= row.stage == "retrain"


@pytest.mark.slow
def test_a_trained_sweep_over_two_machines_goes_on_where_it_was_interrupted(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"data": few_digits, "out": tmp_path / "out", "bench": False}
    given |= {"recipe": replace(SHORT, cluster="local:2"), "amounts": {"params": [0.6, 0.3]}}
    with pytest.raises(KeyboardInterrupt):
        oa.sweep(digits.model, **given, progress=Interrupted())
    assert [point.asked for point in read_trade_off(tmp_path / "out").points] == ["0.6"]
    assert (tmp_path / "out" / "params-0.3" / "unfinished" / "checkpoint.npz").exists()
    before = (tmp_path / "out" / "params-0.6" / "model.onnx").stat().st_mtime_ns
    found = oa.sweep(digits.model, **given, resume=True)
    assert [point.asked for point in found.points] == ["0.6", "0.3"]
    assert (tmp_path / "out" / "params-0.6" / "model.onnx").stat().st_mtime_ns == before
    assert found.points[1].parameters <= 0.3 * found.original.parameters
    told = read_report(tmp_path / "out" / "params-0.3").simplified
    assert any("over 2 machines" in note for note in told)


@pytest.mark.slow
def test_a_search_trains_over_one_crew(
    digits: DemoFiles,
    few_digits: Digits,
    tmp_path: Path,
    settled: list[tuple[RayCrew, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(_search.__globals__, "_MOST", 2)
    few = few_digits[0][:400], few_digits[1][:400]
    given: dict[str, Any] = {"data": few, "max_drop": 60, "by": "params", "bench": False, "limits": LIMITS}
    tried, best = oa.search(digits.model, out=tmp_path / "out", recipe=replace(SHORT, cluster="local:1"), **given)
    assert tried.points[0].folder == "calibrated"  # here: nothing was settled for it
    assert len(tried.points) == 3
    assert [other for _, other in settled] == [True, False]
    assert len({id(crew) for crew, _ in settled}) == 1
    assert "--max-drop 60" in tried.command
    assert "--cluster local:1" in tried.command
    assert best.lost <= 60


def calibrated(digits: DemoFiles, out: Path, cluster: str | None, **named: Any) -> oa.TradeOff:
    given: dict[str, Any] = {
        "amounts": {"macs": [0.8, 0.6, 0.4]},
        "calibration": oa.CalibrationOptions(effort="quick"),
        "limits": LIMITS,
        "bench": False,
    }
    return oa.sweep(digits.model, out=out, recipe=oa.Recipe(cluster=cluster), **{**given, **named})


@pytest.mark.slow
def test_calibrated_budgets_are_dealt_to_machines_and_a_killed_one_costs_its_work_once(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = few_digits[0][:300], few_digits[1][:300]
    np.savez(tmp_path / "samples.npz", images=few[0], labels=few[1])
    monkeypatch.chdir(tmp_path)  # the machines were started elsewhere
    alone = calibrated(digits, Path("alone"), None, calibrate="samples.npz")
    take, asked = RayCrew.take, []

    def killing(self: RayCrew, machine: int, order: Any) -> object:
        ticket = take(self, machine, order)
        asked.append(order["budget"].macs)
        if len(asked) == 1:
            time.sleep(0.3)
            os.kill(self.processes[machine][1], signal.SIGKILL)
        return ticket

    monkeypatch.setattr(RayCrew, "take", killing)
    heard: list[object] = []
    dealt = calibrated(digits, Path("dealt"), "local:2", calibrate="samples.npz", progress=heard.append)
    assert sorted(asked) == [0.4, 0.6, 0.6]
    assert oa.Stage("2 budgets over 2 machines", 2) in heard
    assert any("was lost" in str(note) for note in heard if isinstance(note, oa.Note))
    same_files(alone, tmp_path / "alone", tmp_path / "dealt")
    seconds = {"seconds": 0.0}
    assert [replace(point, **seconds) for point in dealt.points] == [
        replace(point, **seconds) for point in alone.points
    ]
    assert dealt.command == alone.command.replace("alone", "dealt")
    for point in dealt.points:
        report = read_report(tmp_path / "dealt" / point.folder)
        other = read_report(tmp_path / "alone" / point.folder)
        assert report.command == other.command.replace("alone", "dealt")
        assert (report.warnings, report.layers) == (other.warnings, other.layers)
    assert sorted(path.name for path in (tmp_path / "dealt").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )
    # What is done is left alone, and what a run left unfinished is begun anew; arrays are sent, and groups measured
    # where what was passed on is gone.
    for path in (tmp_path / "dealt" / "macs-0.4").iterdir():
        path.unlink()
    unfinished = tmp_path / "dealt" / "macs-0.4" / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoint.npz").write_bytes(b"of a run that was interrupted")
    before = (tmp_path / "dealt" / "macs-0.6" / "model.onnx").stat().st_mtime_ns
    monkeypatch.setattr(RayCrew, "take", take)
    again = calibrated(digits, Path("dealt"), "local:2", calibrate=few, resume=True)
    assert (tmp_path / "dealt" / "macs-0.6" / "model.onnx").stat().st_mtime_ns == before
    assert not unfinished.exists()
    same_files(again, tmp_path / "alone", tmp_path / "dealt")


class Taken(Silent):
    """Takes the samples away when the first budget is made, and the machines are to make the others."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples

    def stage(self, name: str, *, total: int | None = None) -> None:
        if "over 2 machines" in name:
            self._samples.unlink()


@pytest.mark.slow
def test_an_error_on_a_machine_is_the_error_of_the_sweep(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, images=few_digits[0])
    with pytest.raises(InputError, match=r"machine [12], .*samples\.npz"):
        calibrated(digits, tmp_path / "out", "local:2", calibrate=samples, progress=Taken(samples))
    assert [point.asked for point in read_trade_off(tmp_path / "out").points] == ["0.8"]
    assert not (tmp_path / "out" / "macs-0.6").exists()
    assert (tmp_path / "out" / "shared.npz").exists()  # --resume goes on from there


def test_operators_of_ones_own_are_refused(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--cluster: expected operators that onnxadmm knows"):
        calibrated(digits, tmp_path / "out", "local:2", calibrate=few_digits, custom_ops=["none.so"])
    assert not (tmp_path / "out").exists()
