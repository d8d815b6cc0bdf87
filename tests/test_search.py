"""The smallest trained network that keeps a promise: searched for, found, resumed, and out of reach."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, DivergedError, OptionError
from onnxadmm.progress import SILENT
from onnxadmm.report.report import Report
from onnxadmm.report.tradeoff import Point, read_trade_off
from onnxadmm.run.shared import Shared
from onnxadmm.search import _nothing_made, _search, _some
from tests.conftest import Command
from tests.shared import needs_training

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.usefixtures("quick_latency")]


class Pretended:
    """Stands for ``Points``: a network keeps the promise from a share of the cost on."""

    def __init__(self, edge: float) -> None:
        self.shared = Shared()
        self.edge = edge
        self.tried: list[float] = []

    def run(self, amount: str, *, epochs: float, last: bool = False) -> Report | None:
        self.tried.append(float(amount))
        return None

    def found(self) -> Any:
        lost = {each: 0.0 if each >= self.edge else 9.0 for each in self.tried}
        points = [Point(f"{each:.4g}", "", 1, 1, 1, (), None, None, less, True, 1.0) for each, less in lost.items()]
        return SimpleNamespace(points=points, allowed=float)


@pytest.mark.parametrize("start", [None, 0.8, 0.4])
@pytest.mark.parametrize("edge", [0.05, 0.12, 0.3, 0.39])
def test_the_least_share_is_found_with_few_trainings(edge: float, start: float | None) -> None:
    points = Pretended(edge)
    _search(points, start, max_drop=1.0, by="macs", progress=SILENT)  # type: ignore[arg-type]
    assert len(points.tried) <= 6
    kept = min((share for share in points.tried if share >= edge), default=start)
    assert kept is not None
    assert edge <= kept
    if len(points.tried) < 6:
        assert kept <= 1.25 * edge
    assert points.tried == sorted(points.tried, reverse=True) or min(points.tried) < edge


def test_much_data_is_calibrated_with_a_part_of_it() -> None:
    images, labels = np.zeros((5000, 2), np.float32), np.arange(5000)
    some = _some((images, labels))
    assert isinstance(some, tuple)
    assert some[0].shape == (2048, 2)
    assert len(set(some[1].tolist())) == 2048
    named = _some({"x": images, "labels": labels})
    assert isinstance(named, dict)
    assert {name: len(array) for name, array in named.items()} == {"x": 2048, "labels": 2048}
    few = (images[:9], labels[:9])
    assert _some(few) is few


def test_what_makes_no_search_is_refused(digits: DemoFiles, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": "x.npz", "max_drop": 1.0, "out": tmp_path / "out"}
    with pytest.raises(OptionError, match="--by: expected macs, params, size, latency, found 'time'"):
        oa.search(digits.model, **given, by="time")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--macs: expected no budget of what shall be least"):
        oa.search(digits.model, **given, budget={"macs": 0.5})
    assert not (tmp_path / "out").exists()


class Unmade(Pretended):
    """No network can be made."""

    def __init__(self, error: BudgetError | DivergedError) -> None:
        super().__init__(0.0)
        self.error = error

    def run(self, amount: str, *, epochs: float, last: bool = False) -> Report | None:
        raise self.error


@pytest.mark.parametrize(
    ("kind", "by", "common", "why", "ways"),
    [
        (BudgetError, "latency", None, "out of reach", "search with --by macs or --by params or --by size."),
        (BudgetError, "macs", oa.Budget(size=0.9), "out of reach", "by latency, or allow more of --size."),
        (DivergedError, "macs", None, "its training diverged", "diverged; lower --learning-rate."),
    ],
)
def test_where_nothing_can_be_made_the_message_says_why(
    kind: type[BudgetError | DivergedError], by: Any, common: oa.Budget | None, why: str, ways: str
) -> None:
    error = kind("it", expected="much", found="little", way_out="go")
    failed = _search(Unmade(error), None, max_drop=2.0, by=by, progress=SILENT)  # type: ignore[arg-type]
    told = str(_nothing_made(failed, max_drop=2.0, by=by, common=common))
    assert told.startswith("--max-drop 2.0: expected a smaller network that can be made, found none: 70.0 % of the ")
    assert told.count(why) == len(failed)
    assert told.endswith(ways)


@pytest.mark.slow
@needs_training
def test_digits_are_searched_on_the_command_line(
    digits: DemoFiles, few_digits: Samples, command: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "train.npz", images=few_digits[0], labels=few_digits[1])
    out = tmp_path / "out"
    words = ["compress", digits.model, "--data", tmp_path / "train.npz", "--epochs", "4", "--retrain-epochs", "4"]
    words += ["--batch-size", "32", "--no-bench", "--round-to", "1", "--max-drop", "3", "--by", "params", "--out", out]
    ran = command(*words)
    assert ran.status == 0, ran.stderr
    tried = read_trade_off(out / "tried")
    best = tried.pick(3.0)
    report = json.loads((out / "report.json").read_text())
    assert report["after"]["parameters"] == best.parameters < 0.3 * tried.original.parameters
    assert best.lost <= 3.0
    assert {point.folder for point in tried.points} >= {"calibrated", best.folder}
    assert (out / "model.onnx").read_bytes() == (out / "tried" / best.folder / "model.onnx").read_bytes()
    assert not (out / "tried" / "shared.npz").exists()
    # The report is that of the search, not of the network that was chosen.
    assert "--max-drop 3.0 --by params " in report["command"]
    assert f"--out {out} " in report["command"]
    assert "--params" not in report["command"]
    assert tried.command == report["command"]
    told = {name: report["options"][name] for name in ("max_drop", "by", "params", "out")}
    assert told == {"max_drop": 3.0, "by": "params", "params": None, "out": str(out)}
    seconds = sum(stage["seconds"] for stage in report["stages"])
    assert seconds == pytest.approx(sum(point.seconds for point in tried.points))
    assert report["command"].replace("&", "&amp;") in (out / "report.html").read_text()
    assert command(*words).status == 2  # a result stands there
    ran = command(*words, "--force", "--resume", "--seed", "1")
    assert ran.status == 2
    assert "--seed: expected 0" in ran.stderr


@pytest.mark.slow
@needs_training
def test_a_promise_that_nothing_keeps_is_refused_and_what_was_tried_stays(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_search.__globals__, "_MOST", 1)
    recipe = oa.Recipe(epochs=1, retrain_epochs=0, batch_size=32)
    with pytest.raises(BudgetError, match="a point of the sweep that loses no more"):
        oa.search(
            digits.model,
            data=few_digits,
            max_drop=1e-6,
            by="params",
            out=tmp_path / "out",
            recipe=recipe,
            limits=oa.Limits(max_ratio=0.9),
            budget={"macs": 0.05},
            bench=False,
        )
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert read_trade_off(tmp_path / "out" / "tried").points
