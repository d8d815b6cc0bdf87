"""The least network that keeps a promise: searched for, found, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, OptionError
from onnxadmm.run.promise import MOST_TRIES, Try, smallest
from tests.conftest import Command

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.mark.parametrize("edge", [0.03, 0.2, 0.5, 0.9])
def test_the_least_share_is_found_to_a_few_hundredths(edge: float) -> None:
    tried: list[float] = []

    def attempt(share: float) -> Try[float]:
        tried.append(share)
        return Try(share, 0.0 if share >= edge else 9.0, share)

    found = smallest(attempt, most=1.0, lowest=0.02)
    assert found is not None
    assert edge <= found.share <= 1.05 * edge
    assert found.made == found.share
    assert len(tried) <= MOST_TRIES


def test_a_network_that_costs_less_than_it_may_counts_as_what_it_costs() -> None:
    found = smallest(lambda share: Try(0.8 * share, 0.0, "x"), most=1.0, lowest=0.02)
    assert found is not None
    assert found.share < 0.02


def test_a_promise_that_nothing_keeps_is_none() -> None:
    assert smallest(lambda share: Try(share, 9.0, None), most=1.0, lowest=0.02) is None


@pytest.mark.slow
def test_digits_lose_no_more_than_they_may(
    digits: DemoFiles, few_digits: Samples, command: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "samples.npz", images=few_digits[0], labels=few_digits[1])
    words = ("compress", digits.model, "--calibrate", tmp_path / "samples.npz", "--effort", "quick", "--no-bench")
    ran = command(*words, "--max-drop", "2", "--by", "params", "--round-to", "1", "--out", tmp_path / "out")
    assert ran.status == 0, ran.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    before, after = report["before"]["heldout"], report["after"]["heldout"]
    assert before["metric"] == "accuracy"
    assert before["samples"] == 320  # half of them judge
    assert after["value"] >= before["value"] - 0.02
    assert report["after"]["parameters"] < 0.3 * report["before"]["parameters"]
    (budget,) = report["budgets"]
    assert budget["kind"] == "params"
    assert 0.99 * budget["limit"] <= budget["reached"] <= budget["limit"]
    assert any("loses at most 2 points on 320 held-out samples costs" in line for line in report["simplified"])
    assert report["options"]["max_drop"] == 2
    refused = command(*words, "--max-drop", "2", "--macs", "0.5", "--out", tmp_path / "other")
    assert refused.status == 2
    assert "found a budget; leave the budget out" in refused.stderr


def test_what_is_to_be_least_belongs_to_a_promise(digits: DemoFiles, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = command("compress", digits.model, "--calibrate", "none", "--macs", "0.8", "--by", "size", "--out", out)
    assert ran.status == 2
    assert "--by: expected --max-drop, which it is about, found none" in " ".join(ran.stderr.split())
    assert not out.exists()


@pytest.mark.slow
def test_where_every_cut_loses_more_none_is_made(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 6] x) => (float[N, 6] y) { a = MatMul (x, v) '
        "r = Tanh (a) y = MatMul (r, w) }"
    )
    for name, shape in (("v", (6, 12)), ("w", (12, 6))):
        array = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    samples = generator.standard_normal((200, 6)).astype(np.float32)
    given: dict[str, Any] = {"calibrate": samples, "recipe": {"loss": "mse"}, "limits": {"round_to": 1}, "bench": False}
    with pytest.raises(BudgetError, match=r"--max-drop 1e-09: expected a smaller network that loses no more"):
        oa.compress(proto, calibration={"max_drop": 1e-9, "effort": "quick"}, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()  # there is nothing that another run could go on from
    result = oa.compress(proto, calibration={"max_drop": 30.0, "effort": "quick"}, **given)
    assert result.after.parameters < result.before.parameters


def test_what_makes_no_promise_is_refused(digits: DemoFiles) -> None:
    with pytest.raises(OptionError, match="--max-drop: expected points above 0"):
        oa.CalibrationOptions(max_drop=0)
    with pytest.raises(OptionError, match="--by: expected macs, params, size or latency"):
        oa.CalibrationOptions(by="time")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="found no samples; give samples"):
        oa.compress(digits.model, calibrate="none", calibration={"max_drop": 1.0})
