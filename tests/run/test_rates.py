"""Rates of whole runs: as usual where the network bears them, and what is said where it does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DivergedError
from onnxadmm.graph.constants import with_constants
from onnxadmm.progress import SILENT
from onnxadmm.run import checkpoint, rates
from onnxadmm.run.forecast import forecast_of
from onnxadmm.run.journal import Journal
from onnxadmm.run.rates import tried_as_well
from onnxadmm.run.reading import read_training
from onnxadmm.train import rate_trial
from tests.calibrate.networks import network
from tests.run.test_forecast import PACES
from tests.run.test_resume import assert_same_result, interrupt
from tests.shared import needs_training

pytestmark = [pytest.mark.usefixtures("quick_latency"), needs_training]

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
RECIPE = oa.Recipe(epochs=6, retrain_epochs=2, batch_size=64)
#: Its trials take steps enough to come back from where the rise of the rate has led a network.
PATIENT = replace(RECIPE, retrain_epochs=8)
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
    trials: list[rate_trial.Trial] = []

    def find_rate(*given: object, **named: object) -> rate_trial.Trial:
        trials.append(rate_trial.find_rate(*given, **named))  # type: ignore[arg-type]
        return trials[-1]

    monkeypatch.setattr(rates, "find_rate", find_rate)
    run(digits.model, few_digits, tmp_path / "tried", recipe=PATIENT)
    assert [trial.rate for trial in trials] == [1e-3, 5e-3]
    monkeypatch.setattr(rate_trial, "_SHORT", 10**9)
    run(digits.model, few_digits, tmp_path / "untried", recipe=PATIENT)
    assert len(trials) == 2
    assert_same_result(tmp_path / "tried", tmp_path / "untried")


@pytest.mark.slow
@pytest.mark.parametrize(
    "ways",
    [
        {"class_weights": "balanced", "distillation": 0.0},
        {"class_weights": "balanced", "distillation": 0.0, "batch_size": 8, "epochs": 2, "retrain_epochs": 3},
        {"distillation": 0.0, "batch_size": 4, "epochs": 1, "retrain_epochs": 1},
        {"distillation": 1.0},
    ],
    ids=["classes that weigh unlike", "in small batches", "small batches alone", "the teacher alone"],
)
def test_networks_that_bear_the_usual_rates_keep_them_however_losses_jump_from_batch_to_batch(
    ways: dict[str, Any], digits: DemoFiles, few_digits: Digits, tried: None
) -> None:
    images, labels = few_digits
    rare = np.flatnonzero(labels == 3)[10:]
    kept = np.setdiff1d(np.arange(len(labels)), rare)
    found = run(digits.model, (images[kept], labels[kept]), recipe=replace(PATIENT, **ways), expect_accuracy=0)
    said = (*found.report.simplified, *found.report.warnings)
    assert not [each for each in said if TOLD in each or "bears no learning rate" in each]


@pytest.mark.slow
def test_numbers_far_from_zero_are_no_reason_to_bear_what_loses_all_that_is_known(few_digits: Digits) -> None:
    """What says nothing of numbers around 300 is 300 and not 0."""
    images, labels = few_digits
    targets = (300 + labels[:, None]).astype(np.float32)
    text = (
        "g (float[N,1,8,8] x) => (float[N,1] y) { f = Flatten (x) h = Gemm (f, w0) r = Relu (h) y = Gemm (r, w1, b) }"
    )
    model = network(text, {"w0": [64, 32], "w1": [32, 1], "b": [1]})
    training = read_training(
        model,
        (images, targets),
        None,
        recipe=oa.Recipe(loss="mse", distillation=0.0, batch_size=32),
        preprocessing=oa.Preprocessing(),
        inputs={},
        seed=0,
        journal=Journal(SILENT),
    )
    silent = []
    for offset in (0.0, 304.0):
        moved = with_constants(model, {"b": np.array([offset], np.float32)})
        silent.append(rates._silent_loss(training, rates._answers(training, moved)))
    assert silent[0] > 80_000
    assert silent[1] < 1.5 * float(np.var(targets))


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
    assert tried_as_well(4000, 10, tries=True) == (4200, 12)
    assert tried_as_well(4000, 10, tries=False) == (4000, 10)
    assert tried_as_well(40, 10, tries=True) == (40, 10)
    paces = replace(PACES, steps_per_epoch=1000)
    usual = oa.Recipe(epochs=2, retrain_epochs=2)
    given = replace(usual, learning_rate=1e-3, retrain_learning_rate=5e-3)
    longer, shorter, paper = (
        {stage.name: stage.seconds for stage in forecast_of(paces, each, file_bytes=10).stages}
        for each in (usual, given, replace(usual, method="paper"))
    )
    # A hundred steps of a second and two looks of a second; of half a second each.
    assert longer["prune"] - shorter["prune"] == pytest.approx(102)
    assert longer["retrain"] - shorter["retrain"] == pytest.approx(52)
    assert paper["retrain"] == longer["retrain"]
    assert paper["prune"] < longer["prune"] - 99
