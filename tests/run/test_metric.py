"""Another metric decides: it is measured, named wherever figures stand, and chooses what is kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn import metrics

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from onnxadmm.graph.model import to_proto
from onnxadmm.report.report import Score
from onnxadmm.report.rows import comparison_rows
from tests.conftest import Command
from tests.report.samples import sample_report
from tests.report.test_findings import warnings
from tests.shared import needs_training
from tests.train.graphs import mlp, random

pytestmark = pytest.mark.usefixtures("quick_latency")
Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
SHORT = {"epochs": 2, "retrain_epochs": 3, "batch_size": 64}


def outputs_of(model: oa.Model, images: Any) -> Any:
    """Through onnxruntime alone."""
    session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def compressed(digits: DemoFiles, data: Any, metric: Any, **named: Any) -> oa.Compressed:
    given = {"budget": {"params": 0.2}, "bench": False, **named}
    return oa.compress(digits.model, data=data, recipe={**SHORT, "metric": metric}, **given)


def lines(result: oa.Compressed, stage: str) -> list[float]:
    return [row.heldout for row in result.history if row.stage == stage and row.heldout is not None]


@needs_training
def test_f1_is_measured_named_and_decides(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    test = images[:200], labels[:200]
    notes: list[object] = []
    result = compressed(digits, few_digits, "f1", test=test, progress=notes.append)
    for column, model in ((result.before, oa.load(digits.model)), (result.after, result.model)):
        answers = outputs_of(model, test[0]).argmax(1)
        assert column.test is not None
        assert column.test.metric == "f1"
        assert column.test.value == pytest.approx(metrics.f1_score(test[1], answers, average="macro"))
    assert result.after.heldout is not None
    assert result.after.heldout.value >= max(lines(result, "retrain"))
    rows = {row.label: row for row in comparison_rows(result)}
    assert rows["Held-out f1"].after.endswith(" %")
    assert rows["Test f1"].change.endswith(" points")
    assert oa.Note("Held-out figures are f1, which decides: more is better.") in notes
    assert result.options["metric"] == "f1"
    assert " --metric f1 " in result.command


@needs_training
@pytest.mark.parametrize(("metric", "more"), [("r2", True), ("mae", False)])
def test_metrics_of_numbers_decide_with_their_own_direction(metric: str, more: bool) -> None:
    x = random([400, 6], seed=3)
    weights = {tensor.name: np.frombuffer(tensor.raw_data, np.float32) for tensor in mlp().graph.initializer}
    y = np.tanh(x @ weights["w1"].reshape(5, 6).T + weights["b1"]) @ weights["w2"].reshape(4, 5).T + weights["b2"]
    y = (y + 0.05 * random([400, 4], seed=9)).astype(np.float32)
    result = oa.compress(
        mlp(),
        data=(x, y),
        test=(x[:100], y[:100]),
        budget={"params": 0.8},
        limits={"round_to": 1},
        recipe={**SHORT, "batch_size": 32, "loss": "mse", "metric": metric},
        bench=False,
    )
    score = metrics.r2_score if more else metrics.mean_absolute_error
    before, after = result.before.test, result.after.test
    assert before is not None
    assert after is not None
    assert after.metric == metric
    assert after.value == pytest.approx(score(y[:100], outputs_of(result.model, x[:100])), rel=1e-4)
    assert after.more_is_better is more
    best = max if more else min
    assert result.after.heldout is not None
    seen = best(lines(result, "retrain"))
    assert best(result.after.heldout.value, seen) == pytest.approx(result.after.heldout.value)
    assert any(f"test {metric} {'fell' if more else 'rose'} from" in warning for warning in result.warnings)
    assert {row.label: row.worse for row in comparison_rows(result)}[f"Test {metric}"]


def test_a_better_figure_is_no_warning() -> None:
    report = sample_report()
    for metric, was, now in (("mae", 2.0, 1.0), ("r2", -3.0, 0.5), ("worst", 5.0, 9.0)):
        worse, better = (Score(metric, value, 9) for value in (was, now))
        said = [
            [line for line in warnings(before=replace(report.before, test=one), after=replace(report.after, test=other))
             if metric in line]
            for one, other in ((worse, better), (better, worse))
        ]  # fmt: skip
        assert [len(lines) for lines in said] == [0, 1]


def worst_class(outputs: Any, labels: Any) -> float:
    return min(float((outputs.argmax(1) == labels)[labels == each].mean()) for each in np.unique(labels))


@needs_training
def test_a_function_decides_under_its_name(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    result = compressed(digits, few_digits, worst_class, out=tmp_path / "out")
    assert result.after.heldout is not None
    assert result.after.heldout.metric == "worst_class"
    assert result.after.heldout.value >= max(lines(result, "retrain"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["options"]["metric"] == "worst_class"
    assert " --metric METRIC " in result.command


def test_a_function_needs_labels(digits: DemoFiles, few_digits: Digits) -> None:
    with pytest.raises(OptionError, match="--metric worst_class: expected labelled data for a metric of one's own"):
        oa.compress(digits.model, calibrate=few_digits[0], budget={"params": 0.5}, recipe={"metric": worst_class})


def test_without_labels_a_metric_is_against_the_original(digits: DemoFiles, few_digits: Digits) -> None:
    result = oa.compress(
        digits.model, calibrate=few_digits[0][:200], budget={"params": 0.3}, recipe={"metric": "f1"}, bench=False,
        calibration={"effort": "quick"},
    )  # fmt: skip
    assert result.before.heldout is not None
    assert result.before.heldout.metric == "f1 against the original"
    assert result.before.heldout.value == 1
    assert result.before.heldout.is_share


def test_a_promise_is_kept_in_the_metric_that_decides(digits: DemoFiles, few_digits: Digits) -> None:
    result = oa.compress(
        digits.model, calibrate=few_digits, recipe={"metric": "f1"}, bench=False,
        calibration={"effort": "quick", "max_drop": 2},
    )  # fmt: skip
    assert result.before.heldout is not None
    assert result.after.heldout is not None
    assert result.before.heldout.value - result.after.heldout.value <= 0.02 + 1e-9
    assert any("loses at most 2 points of f1 on" in note for note in result.simplified)


def test_bytes_are_judged_by_the_metric(digits: DemoFiles, few_digits: Digits) -> None:
    done = oa.quantize(digits.model, few_digits, recipe={"metric": "perplexity"}, max_drop=50, bench=False)
    assert done.report.after.heldout is not None
    assert done.report.after.heldout.metric == "perplexity"
    assert not done.report.after.heldout.more_is_better
    assert done.report.after.heldout.value >= 1


def test_the_command_line_knows_them(digits: DemoFiles, command: Command, tmp_path: Path) -> None:
    words = ["compress", digits.model, "--calibrate", digits.training, "--scale", 1 / 16, "--params", "0.5"]
    words += ["--no-bench", "--effort", "quick", "--out", tmp_path / "out", "--metric"]
    refused = command(*words, "auc")
    assert refused.status == 2
    assert "--metric: expected accuracy, top-5, f1, mean-iou or perplexity for the loss cross-entropy" in refused.stderr
    done = command(*words, "top-5")
    assert done.status == 0
    assert "The original has a held-out top-5 of 1.0000 on" in done.stderr
    assert "Held-out top-5" in done.stdout
