"""What a notebook shows of the public objects: short, and nothing that a terminal acts upon."""

from dataclasses import replace

import numpy as np
import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from tests.report.samples import sample_report
from tests.test_zoo import ZOO


def test_a_report_is_one_line() -> None:
    text = repr(sample_report())
    assert text.startswith("Report('lenet5_mnist.onnx' became 'model.onnx', parameters 431,080 to 4,253, ")
    assert text.endswith("verified)")
    assert "\n" not in text
    assert "not verified" in repr(replace(sample_report(), verification=None))


def test_a_model_a_plan_and_a_recipe_are_one_line(digits: DemoFiles) -> None:
    model = oa.load(digits.model)
    plan = oa.rank(model, ratio="30%")
    assert repr(plan).startswith("Plan(94 of 320 units go, from 4 groups; ratio 0.3 by magnitude; for sha256 ")
    assert repr(model).endswith(f"12 nodes, 500,132 bytes, sha256 {model.sha256[:12]})")
    assert repr(oa.Recipe(epochs=3, loss="mse")) == "Recipe(loss='mse', epochs=3)"
    assert repr(oa.Recipe()) == "Recipe()"


@pytest.mark.parametrize("name", ["torch_dynamo_densenet", "torch_dynamo_mobilenet_v2"])
def test_units_of_any_network_are_ten_lines(name: str) -> None:
    lines = repr(oa.find_groups(ZOO / f"{name}.onnx")).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("Units(")


def test_a_proof_a_comparison_and_a_network_in_bytes_are_one_line(digits: DemoFiles) -> None:
    model, plan = oa.load(digits.model), oa.rank(digits.model, ratio="30%")
    small = oa.shrink(model, plan)
    proof = oa.verify(model, small, plan)
    assert repr(proof).startswith(f"Verification(passed, {proof.snr_db:.1f} dB of 80 asked, error at most ")
    failed = repr(oa.verify(model, oa.with_weights(small, {"dense2_bias": np.ones(10, np.float32)}), plan))
    assert failed.startswith("Verification(failed: ")
    times = repr(oa.bench([model, small], seconds=0.02))
    assert times.startswith("Latencies(batch 1: '")
    assert times.count(" ms") == 4
    assert times.count("x)") == 2
    with np.load(digits.training) as archive:
        samples = archive["images"][:64]
    done = oa.quantize(model, samples, preprocessing={"scale": 1 / 16}, bench=False)
    assert repr(done).startswith("Quantized(500,132 to ")
    assert done._repr_html_() == done.report._repr_html_()
    assert all("\n" not in text and len(text) < 400 for text in (repr(proof), failed, times, repr(done)))


def test_events_are_one_line() -> None:
    assert repr(oa.Stage("prune", 3)) == "Stage(name='prune', total=3)"
    assert repr(oa.Note("so far")) == "Note(sentence='so far')"
