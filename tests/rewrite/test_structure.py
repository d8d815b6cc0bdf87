"""A retrained result is told from a wrong one, and its structure is held to the plan."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.graph.model import load, to_proto
from onnxadmm.plan.plan import Plan
from onnxadmm.rewrite.record import METADATA_KEY
from tests.conftest import Command
from tests.samples_text import parse_sample

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[N,3,6,6] x) => (float[N,4] y)
<float[8,3,3,3] W1, float[8] B1, float[6,8] W2, float[6] B2, float[4,6] W3, float[4] B3>
{
   c = Conv (x, W1, B1)
   r = Relu (c)
   p = GlobalAveragePool (r)
   f = Flatten (p)
   g = Gemm <transB: int = 1> (f, W2, B2)
   s = Relu (g)
   y = Gemm <transB: int = 1> (s, W3, B3)
}
"""
Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
ORIGINAL = parse_sample(TEXT)


def cut() -> tuple[onnx.ModelProto, Plan]:
    plan = oa.rank(ORIGINAL, ratio=0.5)
    return to_proto(oa.shrink(ORIGINAL, plan)), plan


def change(model: onnx.ModelProto, how: Change, *, only: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Change the weights with two axes or more, all or some of them."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1 and (not only or tensor.name in only):
            array = how(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return model


def trained(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array + np.random.default_rng(0).standard_normal(array.shape).astype(np.float32) / 10


def test_a_retrained_model_does_not_pass_by_numbers_and_fits_by_structure() -> None:
    small, plan = cut()
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert not found.passed
    assert found.retrained is not None
    assert (found.retrained.weights, found.retrained.changed, found.retrained.nodes) == (3, 3, 7)
    assert found.retrained.recorded


def test_a_model_that_was_not_retrained_passes_by_numbers() -> None:
    small, plan = cut()
    found = oa.verify(ORIGINAL, small, plan)
    assert found.passed
    assert found.retrained is None


def other_units(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(array, 1, axis=0)


def one_element(array: NDArray[np.float32]) -> NDArray[np.float32]:
    array.reshape(-1)[0] += 1
    return array


def not_a_number(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array * np.float32(np.nan)


@pytest.mark.parametrize("how", [other_units, one_element, not_a_number])
def test_weights_of_other_units_single_elements_and_nan_are_no_training(how: Change) -> None:
    small, plan = cut()
    found = oa.verify(ORIGINAL, change(small, how), plan)
    assert not found.passed
    assert found.retrained is None


def test_one_weight_of_three_is_no_training() -> None:
    small, plan = cut()
    assert oa.verify(ORIGINAL, change(small, trained, only=("W2",)), plan).retrained is None


def test_a_retrained_model_that_lost_another_unit_does_not_fit() -> None:
    small, plan = cut()
    for name, axis in (("W2", 0), ("B2", 0), ("W3", 1)):
        tensor = next(tensor for tensor in small.graph.initializer if tensor.name == name)
        array = np.delete(numpy_helper.to_array(tensor), 0, axis=axis)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    del small.graph.value_info[:]
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert found.retrained is None
    assert "its structure differs too: weight " in str(found.first_difference)


def test_a_retrained_model_with_another_operator_does_not_fit() -> None:
    small, plan = cut()
    next(node for node in small.graph.node if node.op_type == "Relu").op_type = "Tanh"
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert found.retrained is None
    assert "Relu" in str(found.first_difference)
    assert "Tanh" in str(found.first_difference)


def test_a_retrained_model_whose_record_tells_other_removals_does_not_fit() -> None:
    small, plan = cut()
    (entry,) = (entry for entry in small.metadata_props if entry.key == METADATA_KEY)
    records = json.loads(entry.value)
    records[-1]["units"] = {"W1": [8, 1]}
    entry.value = json.dumps(records)
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert found.retrained is None
    assert "metadata" in str(found.first_difference)


def test_a_retrained_model_without_a_record_fits_and_that_is_stated() -> None:
    small, plan = cut()
    del small.metadata_props[:]
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert found.retrained is not None
    assert not found.retrained.recorded


def test_pruned_connections_must_still_be_zero() -> None:
    _, plan = cut()
    zeros = {"W1": np.random.default_rng(1).random((8, 3, 3, 3)) < 0.4}
    plan = Plan(plan.sha256, plan.groups, zeros=zeros)
    small = to_proto(oa.shrink(ORIGINAL, plan))
    kept = change(onnx.ModelProto.FromString(small.SerializeToString()), lambda array: trained(array) * (array != 0))
    assert oa.verify(ORIGINAL, kept, plan).retrained is not None
    found = oa.verify(ORIGINAL, change(small, trained), plan)
    assert found.retrained is None
    assert "prunes connections" in str(found.first_difference)


@pytest.mark.slow
def test_the_verb_says_what_was_proven_and_what_was_not(command: Command, tmp_path: Path) -> None:
    small, _ = cut()
    oa.save(load(ORIGINAL), tmp_path / "model.onnx")
    command("plan", tmp_path / "model.onnx", "--ratio", 0.5, "-o", tmp_path / "plan.json")
    command("shrink", tmp_path / "model.onnx", tmp_path / "plan.json", "-o", tmp_path / "cut.onnx")
    small = change(onnx.load(tmp_path / "cut.onnx"), trained)
    onnx.save(small, tmp_path / "small.onnx")
    words = ("verify", tmp_path / "model.onnx", tmp_path / "small.onnx", tmp_path / "plan.json")
    ran = command(*words)
    told = " ".join(ran.stdout.split())
    assert ran.status == 0
    assert "retrained after the cut, 3 of 3 weights differ" in told
    assert "Not proven: the numbers" in told
    described = command(*words, "--json")
    assert described.status == 0
    assert json.loads(described.stdout)["retrained"]["changed"] == 3
    onnx.save(change(small, other_units), tmp_path / "small.onnx")
    next(node for node in small.graph.node if node.op_type == "Relu").op_type = "Tanh"
    onnx.save(small, tmp_path / "small.onnx")
    assert command(*words).status == 4
    assert command(*words, "--json").status == 4
