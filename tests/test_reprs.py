"""What a notebook shows of the public objects: short, and nothing that a terminal acts upon."""

from dataclasses import replace

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
