"""Whole runs that calibrate: on the embedded digits, from Python and from the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import to_proto
from tests.calibrate.networks import network
from tests.conftest import Command
from tests.samples_text import parse_sample
from tests.shared import needs_training
from tests.test_surgery import FILLED

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_latency")]


def _run(digits: DemoFiles, samples: Any, **named: Any) -> oa.Compressed:
    given: dict[str, Any] = {"budget": oa.Budget(macs=0.5), "bench": False, "limits": oa.Limits(round_to=1)}
    return oa.compress(digits.model, calibrate=samples, **{**given, **named})


def test_half_of_the_work_goes_without_labels(digits: DemoFiles, few_digits: Samples) -> None:
    images, labels = few_digits
    result = _run(digits, images[:256], test=(images[256:], labels[256:]))
    assert result.verification.passed
    (line,) = result.budgets
    assert 0.95 * line.limit < line.reached <= line.limit
    assert result.before.heldout is not None
    assert result.before.heldout.metric == "agreement"
    assert result.before.test is not None
    assert result.after.test is not None
    assert result.after.test.metric == "accuracy"
    assert result.after.test.value > result.before.test.value - 0.02


def test_cutting_without_a_fit_would_lose_far_more(digits: DemoFiles, few_digits: Samples) -> None:
    images, labels = few_digits
    result = _run(digits, images[:256], budget=oa.Budget(macs=0.3), test=(images[256:], labels[256:]))
    bare = oa.shrink(digits.model, result.plan)
    from onnxadmm.graph.runtime import open_session

    with open_session(bare) as session:
        answers = session.run({session.inputs[0]: images[256:]})[session.outputs[0]].argmax(axis=1)
    assert result.after.test is not None
    assert result.after.test.value > float((answers == labels[256:]).mean()) + 0.05


def test_the_command_line_writes_a_result(
    digits: DemoFiles, few_digits: Samples, command: Command, tmp_path: Path
) -> None:
    np.save(tmp_path / "samples.npy", few_digits[0][:200])
    out = tmp_path / "out"
    ran = command(
        "compress", digits.model, "--calibrate", tmp_path / "samples.npy", "--macs", "0.6", "--effort", "quick",
        "--out", out,
    )  # fmt: skip
    assert ran.status == 0, ran.stderr
    assert "will take about" in ran.stdout + ran.stderr
    assert oa.verify(digits.model, out / "model.onnx", oa.Plan.read(out / "plan.json")).retrained


def test_a_run_that_was_interrupted_goes_on(
    digits: DemoFiles, few_digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few_digits[0][:200]
    whole = _run(digits, images, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("onnxadmm.calibrate.choose.refit", lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _run(digits, images, out=tmp_path / "cut")
    with monkeypatch.context() as patch:
        # All groups were measured, and what the answers depend on was found.
        patch.setattr("onnxadmm.calibrate.curves._shrinking", lambda *given: 1 / 0)
        patch.setattr("onnxadmm.run.calibrations.fisher_information", lambda *given, **named: 1 / 0)
        _run(digits, images, out=tmp_path / "cut", resume=True)
    assert whole.model is not None
    for name in ("plan.json", "model.onnx"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_units_are_chosen_without_gradients_where_there_are_none() -> None:
    text = """g (float[N,6] x) => (float[N,4] y) {
        h = MatMul (x, w0)
        r = Relu (h)
        k = MatMul (r, w1)
        s = Round (k)
        y = MatMul (s, w2)
    }"""
    model = network(text, {"w0": [6, 24], "w1": [24, 5], "w2": [5, 4]})
    samples = 3 * np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    result = oa.compress(
        to_proto(model), calibrate=samples, budget=oa.Budget(macs=0.7), bench=False, limits=oa.Limits(round_to=1)
    )
    assert result.verification.passed
    assert result.budgets[0].met
    (told,) = (note for note in result.simplified if "without gradients" in note)
    assert told.startswith("Units are chosen without gradients: weight w1: expected a gradient, as it reads units")


def test_what_has_gradients_says_nothing_of_them(digits: DemoFiles, few_digits: Samples) -> None:
    found = _run(digits, few_digits[0][:64], calibration=oa.CalibrationOptions(effort="quick"))
    assert not any("gradients" in note for note in found.simplified)


def test_connections_go_without_labels_too(digits: DemoFiles, few_digits: Samples) -> None:
    images, labels = few_digits
    result = _run(digits, images[:256], budget=oa.Budget(connections=0.3), test=(images[256:], labels[256:]))
    assert result.after.parameters == result.before.parameters
    (line,) = result.budgets
    assert line.kind == "connections"
    assert 0.29 < line.reached <= 0.3
    assert result.before.test is not None
    assert result.after.test is not None
    assert result.after.test.value > result.before.test.value - 0.02


def test_units_and_connections_go_together(digits: DemoFiles, few_digits: Samples) -> None:
    images = few_digits[0][:256]
    result = _run(digits, images, budget=oa.Budget(macs=0.6, connections=0.5))
    assert result.verification.passed
    reached = {line.kind: line.reached / line.limit for line in result.budgets}
    assert set(reached) == {"macs", "connections"}
    assert all(0.95 < share <= 1 for share in reached.values())


@needs_training
def test_epochs_let_the_result_learn_from_the_original(digits: DemoFiles, few_digits: Samples) -> None:
    images = few_digits[0][:320]
    result = _run(digits, images, budget=oa.Budget(macs=0.2), recipe={"epochs": 4, "batch_size": 32})
    assert [stage.name for stage in result.stages].count("retrain") == 1
    assert len(result.history) == 4


def test_the_method_that_it_is_may_be_named(digits: DemoFiles, few_digits: Samples) -> None:
    named, unnamed = (_run(digits, few_digits[0], recipe=recipe) for recipe in ({"method": "calibrated"}, {}))
    assert named.plan == unnamed.plan


@pytest.mark.parametrize(
    ("named", "found"),
    [({}, "both"), ({"data": None, "calibrate": None}, "none"), ({"data": None, "recipe": {"mode": "joint"}}, "joint"),
     ({"data": None, "recipe": {"method": "paper"}}, "--method: expected auto or calibrated"),
     ({"data": None, "calibration": {"effort": "much"}}, "'much'"),
     ({"data": None, "calibration": {"memory": "much"}}, "'much'"),
     ({"data": None, "calibration": {"memory": "1MB"}}, "'1MB'")],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(
    digits: DemoFiles, few_digits: Samples, named: dict[str, Any], found: str
) -> None:
    given: dict[str, Any] = {"data": few_digits, "calibrate": few_digits[0], "budget": oa.Budget(macs=0.5)}
    with pytest.raises(OptionError, match=found):
        oa.compress(digits.model, **{**given, **named})


def test_samples_that_are_all_alike_are_refused(digits: DemoFiles, few_digits: Samples) -> None:
    with pytest.raises(DataError, match="all alike"):
        _run(digits, np.repeat(few_digits[0][:1], 50, axis=0))


def test_too_few_samples_are_said_with_how_many_would_do(digits: DemoFiles, few_digits: Samples) -> None:
    result = _run(digits, few_digits[0][:6])
    assert any("samples would determine them" in warning for warning in result.warnings)
    assert result.verification.passed


def test_a_group_whose_cut_would_make_the_file_larger_stays_whole() -> None:
    """Written out, the matrix that the graph fills takes more room than a small cut on both sides of it saves."""
    generator = np.random.default_rng(0)
    proto = parse_sample(FILLED)
    samples = generator.standard_normal((64, 6)).astype(np.float32)
    done = oa.compress(
        proto,
        calibrate=samples,
        budget={"params": 0.9},
        limits={"round_to": 1},
        bench=False,
        calibration={"effort": "quick"},
        simplified=False,
    )
    assert done.after.file_bytes <= done.before.file_bytes
    assert any("needs more room than it saves" in note for note in done.simplified)


def test_a_result_of_which_one_layer_was_fitted_is_known_by_its_plan(digits: DemoFiles, few_digits: Samples) -> None:
    left_alone = ["conv1*", "conv2*", "conv3*"]
    result = _run(digits, few_digits[0][:256], budget=oa.Budget(params=0.6), ignore=left_alone)
    assert result.plan.fitted == ("dense2_bias", "dense2_weight")
    found = oa.verify(digits.model, result.model, result.plan)
    assert found.retrained is not None
    assert found.retrained.changed == 1
    assert oa.Plan.from_json(result.plan.to_json()) == result.plan
    # Without the plan's word for it a single weight that differs is a fault.
    assert oa.verify(digits.model, result.model, replace(result.plan, fitted=())).retrained is None
