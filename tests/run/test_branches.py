"""Whole runs in which branches may go altogether."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.runtime import open_session
from tests.conftest import Command
from tests.latency.clock import clock as clock
from tests.samples_text import parse_sample
from tests.shared import needs_training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_latency")]

#: Two residual blocks, the second of which adds nothing that is not there.
NETWORK = parse_sample(
    """
<ir_version: 8, opset_import: ["" : 17]>
blocks (float[N,6] x) => (float[N,3] y)
<float[6,12] W0, float[12] b0, float[12,16] W1, float[16] b1, float[16,12] W2, float[12] b2,
 float[12,16] W3, float[16] b3, float[16,12] W4, float[12] b4, float[12,3] W5>
{
   a = Gemm (x, W0, b0)
   s = Relu (a)
   c = Gemm (s, W1, b1)
   d = Relu (c)
   e = Gemm (d, W2, b2)
   t = Add (s, e)
   f = Gemm (t, W3, b3)
   g = Relu (f)
   h = Gemm (g, W4, b4)
   u = Add (t, h)
   y = MatMul (u, W5)
}
"""
)
FREE = oa.Limits(keep_at_least=0, round_to=4)
Samples = tuple[NDArray[np.float32], NDArray[np.int64]]


def network() -> onnx.ModelProto:
    """The network, whose second block adds a thousandth of what it did."""
    proto = onnx.ModelProto.FromString(NETWORK.SerializeToString())
    for tensor in proto.graph.initializer:
        if tensor.name in ("W4", "b4"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-3), tensor.name))
    return proto


@pytest.fixture(scope="module")
def samples() -> Samples:
    """What the network is right in."""
    x = np.random.default_rng(0).standard_normal((640, 6)).astype(np.float32)
    with open_session(load(network())) as session:
        return x, session.run({"x": x})["y"].argmax(axis=1)


def left(result: oa.Compressed) -> dict[str, int]:
    return {group.name: group.units_after for group in result.report.groups if group.locked is None}


def test_a_block_that_adds_nothing_goes_without_labels(samples: Samples) -> None:
    result, usual = (
        oa.compress(network(), calibrate=samples[0], budget={"params": 0.62}, limits=limits, bench=False)
        for limits in (FREE, oa.Limits(round_to=4))
    )
    assert left(result)["W3"] == 0
    assert left(usual)["W3"] > 0
    assert result.verification is not None
    assert result.verification.passed
    names = {tensor.name for tensor in to_proto(result.model).graph.initializer}
    assert not {"W3", "b3", "W4"} & names
    (line,) = result.budgets
    assert line.reached <= line.limit
    assert any(
        "No unit is left of W3: 1 group whose branches have left the graph." in note
        for note in result.report.simplified
    )
    assert "--keep-at-least 0" in result.report.command
    assert result.after.heldout is not None
    assert usual.after.heldout is not None
    assert result.after.heldout.value >= usual.after.heldout.value


@needs_training
@pytest.mark.parametrize("recipe", [{"epochs": 2}, {"method": "calibrated"}], ids=["gates", "calibrated"])
def test_what_is_left_trains(recipe: dict[str, Any], samples: Samples, command: Command, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "network.onnx")
    given = {**recipe, "retrain_epochs": 2, "batch_size": 32}
    result = oa.compress(
        tmp_path / "network.onnx",
        data=samples, budget={"params": 0.2}, limits=FREE, recipe=given, bench=False, out=tmp_path / "out",
    )  # fmt: skip
    assert 0 in left(result).values()
    assert [row.stage for row in result.report.history][-2:] == ["retrain", "retrain"]
    ran = command("verify", tmp_path / "network.onnx", tmp_path / "out" / "model.onnx", tmp_path / "out" / "plan.json")
    assert ran.status == 0, ran.stderr + ran.stdout


@needs_training
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("budget", "limits", "least", "told"),
    [
        ({"latency": 0.8}, {}, 0, None),
        ({"latency": 0.8}, {"keep_at_least": 1}, 1, "--keep-at-least 1"),
        ({"macs": 0.9}, {}, 1, None),
        ({"macs": 0.9}, {"keep_at_least": 0}, 0, "--keep-at-least 0"),
    ],
)
def test_branches_may_go_of_their_own_accord_where_milliseconds_count(
    budget: dict[str, float],
    limits: dict[str, int],
    least: int,
    told: str | None,
    digits: DemoFiles,
    few_digits: Samples,
) -> None:
    report = oa.compress(
        digits.model,
        calibrate=few_digits[0],
        budget=budget,
        limits=limits,
        calibration={"effort": "quick"},
        bench=False,
    ).report
    assert report.options["keep_at_least"] == least
    assert ("--keep-at-least" in report.command) == (told is not None)
    assert told is None or told in report.command


def test_the_next_budget_of_a_sweep_begins_with_what_is_left(samples: Samples, tmp_path: Path) -> None:
    found = oa.sweep(
        network(), data=samples, amounts={"params": [0.5, 0.2]}, limits=FREE, out=tmp_path / "sweep", bench=False,
        recipe={"epochs": 2, "retrain_epochs": 2, "batch_size": 32},
    )  # fmt: skip
    assert [point.asked for point in found.points] == ["0.5", "0.2"]
    assert found.points[1].parameters <= 0.2 * found.original.parameters
