"""Weights out and back by name: what goes in is what the file then has, and nothing that does not fit goes in."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError


def arrays_of(path: Path) -> dict[str, Any]:
    """Initializers through the onnx package alone."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_weights_are_those_of_the_file_and_copies(digits: DemoFiles) -> None:
    model = oa.load(digits.model)
    found = oa.weights(model)
    assert same(found, arrays_of(digits.model))
    assert all(array.dtype == np.float32 for array in found.values())
    found["conv1_weight"][:] = 0
    assert same(oa.weights(model), arrays_of(digits.model))


def test_weights_written_back_are_in_the_file_and_no_others_changed(digits: DemoFiles, tmp_path: Path) -> None:
    before = arrays_of(digits.model)
    other = np.random.default_rng(0).normal(size=before["conv2_weight"].shape).astype(np.float32)
    model = oa.load(digits.model)
    changed = oa.with_weights(model, {"conv2_weight": other})
    oa.save(changed, tmp_path / "changed.onnx")
    assert same(arrays_of(tmp_path / "changed.onnx"), {**before, "conv2_weight": other})
    assert same(oa.weights(model), before)
    other[:] = 7  # the array was copied
    assert not (oa.weights(changed)["conv2_weight"] == 7).any()


def test_a_plan_holds_for_the_copy_until_it_is_saved(digits: DemoFiles, tmp_path: Path) -> None:
    plan = oa.rank(digits.model, ratio=0.5, by="random")
    trained = oa.with_weights(digits.model, {name: 2 * array for name, array in oa.weights(digits.model).items()})
    small = oa.shrink(trained, plan)
    assert oa.verify(trained, small, plan).passed
    assert not oa.verify(digits.model, small, plan).passed
    oa.save(trained, tmp_path / "trained.onnx")
    with pytest.raises(oa.OnnxAdmmError, match="sha256"):
        oa.shrink(tmp_path / "trained.onnx", plan)


def test_constants_in_nodes_and_numbers_of_other_kinds() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3] x) => (float[n, 3] y)
        <float[3] w = {1, 2, 3}, int64[1] axes = {0}, float one = {1}>
        { c = Constant <value = float[3] {4, 5, 6}> ()  a = Mul (x, w)  b = Mul (a, c)  d = Mul (b, one)
          e = Unsqueeze (d, axes)  y = Squeeze (e, axes) }"""
    model = onnx.parser.parse_model(text)
    found = oa.weights(model)
    assert {name: list(array) for name, array in found.items()} == {"w": [1, 2, 3], "c": [4, 5, 6]}
    changed = oa.with_weights(model, {"c": np.zeros(3, np.float32), "axes": np.array([1])})
    assert list(oa.weights(changed)["c"]) == [0, 0, 0]


class Tensor:
    """A tensor that needs a gradient, as PyTorch says it."""

    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv1_wieght", np.zeros(1, np.float32), "found none of this name; did you mean conv1_weight"),
        ("zzz", np.zeros(1, np.float32), "see the names that onnxadmm.weights"),
        ("conv1_bias", np.zeros(31, np.float32), r"expected float32 of shape \[32\], found float32 of shape \[31\]"),
        ("conv1_bias", np.zeros((32, 1), np.float32), r"found float32 of shape \[32, 1\]"),
        ("conv1_bias", np.zeros(32), r"expected float32 of shape \[32\], found float64"),
        ("conv1_bias", [0.0] * 32, "found float64"),
        ("conv1_bias", np.full(32, np.nan, np.float32), "expected finite numbers"),
        ("conv1_bias", Tensor(), r"expected an array.*tensors of PyTorch by .detach\(\).numpy\(\)"),
    ],
)
def test_what_does_not_fit_is_refused(digits: DemoFiles, name: str, value: object, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        oa.with_weights(digits.model, {name: value})
