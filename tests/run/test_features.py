"""Whole runs with ``--features``: single columns behind a Flatten go, and channels with the last of theirs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.graph.model import Model
from onnxadmm.report.reading import read_report
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import find_units
from tests.conftest import Command
from tests.shared import needs_training
from tests.test_zoo import ZOO

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = pytest.mark.usefixtures("quick_latency")


def _run(digits: DemoFiles, **named: Any) -> oa.Compressed:
    given: dict[str, Any] = {"budget": oa.Budget(params=0.1), "bench": False, "features": True}
    return oa.compress(digits.model, **{**given, **named})


def _picked(model: Model) -> list[tuple[int, ...]]:
    return [tuple(node.inputs[1].shape or ()) for node in model.ir.graph if node.op_type == "Gather" and node.inputs[1]]


def _holds(result: oa.Compressed, digits: DemoFiles) -> None:
    """The plan, the report and the file say the same, and that is what was asked for."""
    assert result.verification.passed
    assert result.plan.features
    assert "--features" in result.report.command
    (line,) = result.budgets
    assert 0.9 * line.limit < line.reached <= line.limit
    counted = {kind: Cost(find_units(result.model), kind).dense() for kind in ("params", "macs")}  # type: ignore[arg-type]
    assert line.reached == counted["params"] == result.after.parameters
    assert result.after.macs == counted["macs"]
    (columns,) = (group for group in result.report.groups if group.name.endswith("_columns"))
    assert _picked(result.model) == [(columns.units_after,)]
    assert columns.units_after < columns.units_before
    told = (
        f"{columns.units_before:,} columns behind a flattening are units of their own; a Gather picks those that stay."
    )
    assert told in result.report.simplified
    structure = oa.verify(digits.model, result.model, result.plan)
    assert structure.passed or structure.retrained is not None


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        oa.Recipe(epochs=2, retrain_epochs=1, batch_size=64),
        oa.Recipe(epochs=1, retrain_epochs=1, batch_size=64, engine="plain", refit=True),
        oa.Recipe(method="calibrated", retrain_epochs=1, batch_size=64),
    ],
    ids=["trained", "trained by own gradients, and fitted", "calibrated"],
)
def test_columns_go_where_the_network_trains(recipe: oa.Recipe, digits: DemoFiles, few_digits: Digits) -> None:
    result = _run(digits, data=few_digits, recipe=recipe, test=few_digits)
    _holds(result, digits)
    assert result.after.test is not None
    assert result.after.test.value > 0.3  # guessing is 0.1


@needs_training
@pytest.mark.slow
@pytest.mark.parametrize("method", ["admm", "calibrated"])
def test_connections_that_stay_are_a_share_of_what_is_left_of_channels_too(
    method: str, digits: DemoFiles, few_digits: Digits
) -> None:
    epochs = {} if method == "calibrated" else {"epochs": 1}
    recipe = oa.Recipe(method=method, retrain_epochs=1, batch_size=64, **epochs)  # type: ignore[arg-type]
    result = _run(digits, data=few_digits, recipe=recipe, budget=oa.Budget(params=0.05, connections=0.5))
    assert any(group.locked is None and group.name == "conv3_weight" for group in result.report.groups)
    line = next(line for line in result.budgets if line.kind == "connections")
    assert 0.47 < line.reached <= 0.5


@needs_training
@pytest.mark.slow
def test_a_target_for_columns_is_met_wherever_they_are(digits: DemoFiles, few_digits: Digits) -> None:
    recipe = oa.Recipe(mode="joint", epochs=1, retrain_epochs=1, batch_size=64)
    result = _run(digits, data=few_digits, recipe=recipe, budget=None, targets={"*_columns": 0.1})
    (columns,) = (group for group in result.report.groups if group.name.endswith("_columns"))
    assert columns.units_after == int(0.1 * columns.units_before)


@pytest.mark.slow
def test_columns_go_without_training(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    result = _run(digits, calibrate=images[:256], test=(images[256:], labels[256:]))
    _holds(result, digits)


@pytest.mark.slow
def test_channels_that_went_with_their_columns_are_told_of(digits: DemoFiles, few_digits: Digits) -> None:
    result = _run(digits, calibrate=few_digits[0][:256], budget=oa.Budget(params=0.02))
    _holds(result, digits)
    told = [
        note for note in result.report.simplified if note.endswith("went as well, since none of their columns is left.")
    ]
    assert told
    count, name = int(told[0].split()[0]), told[0].split(" went")[0].split()[-1]
    (group,) = (group for group in result.report.groups if group.name == name)
    assert group.units_before - group.units_after == count
    assert group.locked is None
    weight = result.model.ir.graph.initializers[name].shape
    assert weight is not None
    assert weight[0] == group.units_after


@pytest.mark.slow
def test_the_command_line_goes_all_the_way(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    plan, small = tmp_path / "plan.json", tmp_path / "small.onnx"
    made = command("plan", digits.model, "--features", "--params", "0.2", "-o", plan)
    assert made.status == 0
    assert "columns behind a flattening are units of their own" in made.stderr
    assert json.loads(plan.read_text())["features"] is True
    assert command("shrink", digits.model, plan, "-o", small).status == 0
    assert command("verify", digits.model, small, plan).status == 0
    looked = command("inspect", small, "--features")
    assert looked.status == 0
    assert "columns" in looked.stdout
    assert "columns behind a flattening are units of their own" in " ".join(looked.stdout.split())
    data = ("--data", digits.training, "--scale", "0.0625", "--no-bench")
    words = ("--features", "--method", "calibrated", "--retrain-epochs", "1", "--params", "0.5")
    assert command("compress", small, *data, *words, "--out", tmp_path / "out").status == 0
    report = read_report(tmp_path / "out")
    assert report.after.parameters <= 0.5 * report.before.parameters


def test_a_network_without_a_flatten_is_told_so(command: Command) -> None:
    looked = command("inspect", ZOO / "torch_script_resnet_basic.onnx", "--features")
    assert looked.status == 0
    assert "--features changes nothing" in " ".join(looked.stdout.split())


def test_a_plan_without_them_says_nothing_of_features(digits: DemoFiles) -> None:
    assert "features" not in json.loads(oa.rank(digits.model, ratio=0.5).to_json())
