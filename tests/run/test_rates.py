"""Rates of whole runs: as usual where the network bears them, and what is said where it does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DivergedError
from onnxadmm.run import checkpoint
from onnxadmm.run.forecast import forecast_of
from onnxadmm.run.rates import tried_as_well
from onnxadmm.train import rate_trial
from tests.run.test_forecast import PACES
from tests.run.test_resume import assert_same_result, interrupt
from tests.shared import needs_training

pytestmark = [pytest.mark.usefixtures("quick_latency"), needs_training]

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(epochs=6, retrain_epochs=2, batch_size=64)
TOLD = "The highest learning rate is"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs try their rates as well."""
    monkeypatch.setattr(rate_trial, "_SHORT", 10)
    monkeypatch.setattr(rate_trial, "_PART", 1.0)


@pytest.fixture(scope="module")
def delicate(digits: DemoFiles) -> onnx.ModelProto:
    """The digits' network with a last product whose weights are a thousandth, and a factor of 1000 behind it."""
    proto = onnx.load(digits.model)
    last = next(node for node in reversed(proto.graph.node) if node.op_type == "Gemm")
    for tensor in proto.graph.initializer:
        if tensor.name in last.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / np.float32(1000), tensor.name))
    result, last.output[0] = last.output[0], "thousandth"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1000), "thousand"))
    place = list(proto.graph.node).index(last)
    proto.graph.node.insert(place + 1, helper.make_node("Mul", ["thousandth", "thousand"], [result]))
    onnx.checker.check_model(proto)
    return proto


def run(model: object, data: Digits, out: Path | None = None, **changes: object) -> oa.Compressed:
    options = {"budget": oa.Budget(params=0.8), "recipe": RECIPE, "bench": False, "out": out, **changes}
    return oa.compress(model, data=data, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_network_that_does_not_bear_the_usual_rates_is_trained_at_less_and_the_run_says_so(
    delicate: onnx.ModelProto, few_digits: Digits, tried: None
) -> None:
    found = run(delicate, few_digits)
    told = [note for note in found.report.simplified if note.startswith(TOLD)]
    assert [
        word for note in told for word in ("--learning-rate", "--retrain-learning-rate") if f" {word} " in note
    ] == [
        "--learning-rate",
        "--retrain-learning-rate",
    ]
    stages = [
        max(row.learning_rate for row in found.report.history if row.stage == stage) for stage in ("prune", "retrain")
    ]
    assert stages[0] <= 3e-4
    assert stages[1] <= 1.5e-3
    assert found.report.after.heldout is not None
    assert found.report.after.heldout.value > 0.9
    with pytest.raises(DivergedError, match="--learning-rate"):
        run(delicate, few_digits, recipe=replace(RECIPE, learning_rate=1e-3))


@pytest.mark.slow
def test_a_trial_that_the_usual_rate_passes_changes_nothing(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, tried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(digits.model, few_digits, tmp_path / "tried")
    monkeypatch.setattr(rate_trial, "_SHORT", 10**9)
    run(digits.model, few_digits, tmp_path / "untried")
    assert_same_result(tmp_path / "tried", tmp_path / "untried")


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 44])
def test_a_resumed_run_goes_on_at_the_rate_that_was_found(
    at: int, delicate: onnx.ModelProto, few_digits: Digits, tmp_path: Path, tried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE_OF_TIME", 1e9)

    def compress(out: Path, **changes: object) -> oa.Report:
        return run(delicate, few_digits, out, **changes).report

    compress(tmp_path / "whole")
    interrupt(compress, tmp_path / "parts", at=at)
    compress(tmp_path / "parts", resume=True)
    assert_same_result(tmp_path / "whole", tmp_path / "parts")


def test_a_forecast_counts_a_trial_of_rates_that_nobody_gave() -> None:
    assert tried_as_well(4000, 10, given=None) == (4200, 12)
    assert tried_as_well(4000, 10, given=1e-3) == (4000, 10)
    assert tried_as_well(40, 10, given=None) == (40, 10)
    paces = replace(PACES, steps_per_epoch=1000)
    usual = oa.Recipe(epochs=2, retrain_epochs=2)
    given = replace(usual, learning_rate=1e-3, retrain_learning_rate=5e-3)
    longer, shorter = (forecast_of(paces, each, file_bytes=10).seconds for each in (usual, given))
    assert longer > shorter
