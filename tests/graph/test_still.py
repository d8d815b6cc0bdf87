"""Models that draw at random while running are proven all the same, and their user is told."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.graph.model import load, save, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.still import about_drawing, still
from onnxadmm.operators.table import operators
from tests.conftest import Command
from tests.samples_text import parse_sample

DROPOUT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[N,8] x) => (float[N,4] y)
<float[8,64] W1, float[64] B1, float[64,4] W2, float half = {0.5}, bool training = {1}>
{
   h = MatMul (x, W1)
   b = Add (h, B1)
   r = Relu (b)
   d = Dropout <seed: int = 1> (r, half, training)
   y = MatMul (d, W2)
}
"""
#: What draws, each so that the output depends on the draw.
DRAWS = {
    "RandomNormal": "n = RandomNormal <shape: ints = [1, 4]> ()",
    "RandomUniform": "n = RandomUniform <shape: ints = [1, 4]> ()",
    "RandomNormalLike": "n = RandomNormalLike (z)",
    "RandomUniformLike": "n = RandomUniformLike (z)",
    "Bernoulli": "s = Sigmoid (z)\n   n = Bernoulli (s)",
    "Multinomial": "m = Multinomial <sample_size: int = 4> (z)\n   n = Cast <to: int = 1> (m)",
}


def drawing(operator: str) -> onnx.ModelProto:
    return parse_sample(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        network (float[N,8] x) => (float[N,4] y)
        <float[8,64] W1, float[64,4] W2>
        {{
           h = MatMul (x, W1)
           r = Relu (h)
           z = MatMul (r, W2)
           {DRAWS[operator]}
           y = Add (z, n)
        }}
        """
    )


def network(operator: str) -> onnx.ModelProto:
    return parse_sample(DROPOUT.replace("<seed: int = 1> ", "")) if operator == "Dropout" else drawing(operator)


def test_every_operator_that_draws_is_tried_here() -> None:
    assert {entry.name for entry in operators() if entry.draws} == {*DRAWS, "Dropout"}


@pytest.mark.parametrize("operator", [*DRAWS, "Dropout"])
def test_a_model_that_draws_is_proven_and_the_operator_is_named(operator: str) -> None:
    original = network(operator)
    plan = oa.rank(original, ratio=0.5)
    found = oa.verify(original, oa.shrink(original, plan), plan)
    assert found.passed
    assert found.snr_db > 80
    assert [name.split()[0] for name in found.held_still] == [operator]


@pytest.mark.parametrize("operator", [*DRAWS, "Dropout"])
def test_a_fault_in_a_model_that_draws_is_found(operator: str) -> None:
    original = network(operator)
    plan = oa.rank(original, ratio=0.5)
    small = to_proto(oa.shrink(original, plan))
    weight = next(tensor for tensor in small.graph.initializer if tensor.name == "W2")
    array = onnx.numpy_helper.to_array(weight).copy()
    array += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "W2"))
    assert not oa.verify(original, small, plan).passed


@pytest.mark.parametrize("operator", [*DRAWS, "Dropout"])
def test_two_runs_of_what_is_held_still_are_the_same(operator: str) -> None:
    model = load(network(operator))
    feed = {"x": np.ones((2, 8), np.float32)}
    held, _ = still(model)
    first, second = (open_session(held, as_written=True).run(feed)["y"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_model_that_draws_nothing_is_handed_back() -> None:
    for text in (
        DROPOUT.replace("bool training = {1}", "bool training = {0}"),
        DROPOUT.replace(", half, training", ""),
    ):
        model = load(parse_sample(text))
        assert still(model) == (model, ())


def test_dropout_in_training_mode_is_called_that_and_other_draws_are_not() -> None:
    assert "exported in training mode" in about_drawing(("Dropout (d)",))
    assert "same draw" in about_drawing(("RandomNormal (n)",))


@pytest.mark.slow
def test_the_verbs_say_that_a_file_was_exported_in_training_mode(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(load(network("Dropout")), path)
    assert command("plan", path, "--ratio", 0.5, "-o", tmp_path / "plan.json").status == 0
    shrunk = command("shrink", path, tmp_path / "plan.json", "-o", tmp_path / "small.onnx")
    proven = command("verify", path, tmp_path / "small.onnx", tmp_path / "plan.json")
    assert shrunk.status == proven.status == 0
    for ran in (shrunk, proven):
        assert "Dropout (d) drops at random: the file was exported in training mode" in " ".join(ran.stderr.split())
