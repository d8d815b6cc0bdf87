"""Bisection: a planted fault is narrowed down to one unit, in a model without the user's weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxadmm
from onnxadmm.bisect import bisect, write_culprit
from onnxadmm.cli import main
from onnxadmm.errors import OutputError
from onnxadmm.rules import reshaping
from onnxadmm.rules.facts import Axis
from tests.samples_text import parse_sample

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
flattened (float[N, 3, 6, 6] x) => (float[N, 5] y)
<float[8, 3, 3, 3] first, float[8] shift, float[6, 8, 3, 3] second, float[5, 24] last>
{
  a = Conv <kernel_shape = [3, 3]> (x, first, shift)
  b = Relu (a)
  c = Conv <kernel_shape = [3, 3]> (b, second)
  d = Flatten (c)
  y = Gemm <transB = 1> (d, last)
}
"""


def _tile_for_repeat(sources: list[tuple[int, Axis]], carrier: int) -> Axis:
    labels = sources[carrier][1]
    assert labels is not None
    return np.tile(labels, int(np.prod([size for size, _ in sources])) // labels.size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "flattened.onnx"
    onnx.save(parse_sample(TEXT), path)
    return path


def test_a_planted_flatten_fault_is_narrowed_down_to_one_unit_of_its_group(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    plan = onnxadmm.rank(model, ratio=0.5)
    assert not onnxadmm.verify(model, onnxadmm.shrink(model, plan), plan).passed
    culprit = bisect(model, plan)
    assert culprit is not None
    assert culprit.group == "second"
    assert len(culprit.units) == 1
    assert culprit.reproduced
    assert "Flatten" in (culprit.verification.first_difference or "")
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer}
    handed_on = {value.name: value.const_value for value in culprit.model.ir.graph.initializers.values()}
    assert handed_on
    for name, tensor in handed_on.items():
        assert tensor is not None
        if name in given and tensor.dtype.is_floating_point():
            assert not np.isin(tensor.numpy(), given[name]).any()


def test_a_plan_that_passes_has_no_culprit(model: Path) -> None:
    plan = onnxadmm.rank(model, ratio=0.5)
    assert bisect(model, plan) is None


def test_the_written_pair_shows_the_failure_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    plan = onnxadmm.rank(model, ratio=0.5)
    plan_path, small_path = tmp_path / "plan.json", tmp_path / "small.onnx"
    plan_path.write_text(plan.to_json())
    onnxadmm.save(onnxadmm.shrink(model, plan), small_path)
    folder = tmp_path / "report"
    status = main(["verify", str(model), str(small_path), str(plan_path), "--bisect", str(folder)])
    assert status == 4
    assert "Flatten" in capsys.readouterr().err
    repeated, again = folder / "reproduce.onnx", onnxadmm.Plan.read(folder / "reproduce.json")
    assert not onnxadmm.verify(repeated, onnxadmm.shrink(repeated, again), again).passed


def test_inputs_are_held_at_the_values_that_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shape that random numbers would not be: no trial runs without it."""
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    path, plan_path, small_path = (tmp_path / name for name in ("model.onnx", "plan.json", "small.onnx"))
    text = TEXT.replace("x) =>", "x, int64[2] size) =>").replace("y = Gemm", "e = Gemm")
    onnx.save(parse_sample(text.replace("\n}", "\n  y = Reshape (e, size)\n}")), path)
    plan = onnxadmm.rank(path, ratio=0.5)
    plan_path.write_text(plan.to_json())
    onnxadmm.save(onnxadmm.shrink(path, plan), small_path)
    words = ["verify", str(path), str(small_path), str(plan_path), "--input", "size=-1,5"]
    assert main([*words, "--bisect", str(tmp_path / "report")]) == 4
    assert "Group 'second' fails when unit" in capsys.readouterr().err
    repeated, again = tmp_path / "report" / "reproduce.onnx", onnxadmm.Plan.read(tmp_path / "report" / "reproduce.json")
    proof = onnxadmm.verify(repeated, onnxadmm.shrink(repeated, again), again, inputs={"size": [-1, 5]})
    assert not proof.passed


def test_nothing_is_overwritten_without_force(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    culprit = bisect(model, onnxadmm.rank(model, ratio=0.5))
    assert culprit is not None
    write_culprit(culprit, tmp_path / "report", force=False)
    with pytest.raises(onnxadmm.OnnxAdmmError, match="an existing one"):
        write_culprit(culprit, tmp_path / "report", force=False)


def test_a_plan_that_stands_there_alone_is_not_overwritten_either(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    culprit = bisect(model, onnxadmm.rank(model, ratio=0.5))
    assert culprit is not None
    (tmp_path / "reproduce.json").write_text("mine")
    with pytest.raises(onnxadmm.OnnxAdmmError, match="an existing one"):
        write_culprit(culprit, tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("reproduce")] == ["reproduce.json"]
    assert (tmp_path / "reproduce.json").read_text() == "mine"


def test_a_folder_that_is_a_file_is_one_sentence(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reshaping, "_spread", _tile_for_repeat)
    culprit = bisect(model, onnxadmm.rank(model, ratio=0.5))
    assert culprit is not None
    with pytest.raises(OutputError, match="a folder that can be written"):
        write_culprit(culprit, model, force=True)
