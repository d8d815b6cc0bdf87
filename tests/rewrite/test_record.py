"""What pruned models say about themselves, and which models are refused because they cannot be related."""

import json
from pathlib import Path

import pytest

import onnxadmm
from onnxadmm.errors import ModelFileError
from onnxadmm.graph.model import Model, clone, to_proto
from onnxadmm.plan.plan import Plan
from onnxadmm.rewrite.record import METADATA_KEY, read_records
from tests.conftest import Command
from tests.samples_text import parse_sample

TEXT = """
<ir_version: {ir}, opset_import: ["" : 17]>
dense (float[{batch}, {width}] {x}{listed}) => ({kind}[{batch}, 3] y)
<float[{width}, 8] first, float[8, 3] second>
{{
  h = MatMul ({x}, first)
  r = Relu (h)
  {tail}
}}
"""


def dense(seed: int = 0, **changes: object) -> Model:
    """A network of two layers, eight units between them."""
    parts = {"ir": 8, "batch": "N", "width": 5, "x": "x", "kind": "float", "listed": ""}
    parts |= {"tail": "y = MatMul (r, second)"} | changes
    return onnxadmm.load(parse_sample(TEXT.format(**parts), seed=seed))


def pruned(model: Model, ratio: float = 0.5) -> tuple[Model, Plan]:
    plan = onnxadmm.rank(model, ratio=ratio)
    return onnxadmm.shrink(model, plan), plan


def saved(model: Model, path: Path) -> Model:
    onnxadmm.save(model, path)
    return onnxadmm.load(path)


def test_pruning_twice_leaves_two_records_the_oldest_first(tmp_path: Path) -> None:
    original = dense()
    once = saved(pruned(original)[0], tmp_path / "once.onnx")
    twice = saved(pruned(once)[0], tmp_path / "twice.onnx")
    ((group, counts),) = read_records(once)[0]["units"].items()
    assert counts == [8, 4]
    assert read_records(twice) == [
        {"sha256": original.sha256, "units": {group: [8, 4]}},
        {"sha256": once.sha256, "units": {group: [4, 2]}},
    ]


def test_a_single_record_of_the_first_versions_is_kept_in_front() -> None:
    model = clone(dense())
    model.ir.metadata_props[METADATA_KEY] = json.dumps({"units": {"old": [9, 8]}})
    assert read_records(model) == [{"units": {"old": [9, 8]}}]
    small, plan = pruned(model)
    assert [list(record["units"].values()) for record in read_records(small)] == [[[9, 8]], [[8, 4]]]
    assert onnxadmm.verify(model, small, plan).passed


@pytest.mark.parametrize("text", ["", "pruned by hand", "3", '["half"]'])
def test_what_is_no_record_is_passed_over(text: str) -> None:
    model = clone(dense())
    model.ir.metadata_props[METADATA_KEY] = text
    assert read_records(model) == []
    assert len(read_records(pruned(model)[0])) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": "z"}, "the inputs of the original, x float"),
        ({"width": 6}, "6]"),
        ({"batch": "4, N"}, "4, N"),
        ({"seed": 1}, "one made from"),
        ({"kind": "double", "tail": "w = MatMul (r, second)\n y = Cast <to: int = 11> (w)"}, "double["),
    ],
    ids=["input name", "input length", "input rank", "other weights", "output type"],
)
def test_a_model_that_was_made_from_another_is_refused(
    changes: dict[str, object], says: str, tmp_path: Path, command: Command
) -> None:
    model, other = dense(), dense(**changes)  # type: ignore[arg-type]  # the seed is a number
    small, plan = pruned(model)
    strange, _ = pruned(other)
    with pytest.raises(ModelFileError) as caught:
        onnxadmm.verify(model, strange, plan)
    assert says in str(caught.value)
    paths = [tmp_path / name for name in ("model.onnx", "small.onnx", "strange.onnx")]
    for each, path in zip((model, small, strange), paths, strict=True):
        onnxadmm.save(each, path)
    assert command("plan", paths[0], "--ratio", "0.5", "-o", tmp_path / "plan.json").status == 0
    ran = command("verify", paths[0], paths[2], tmp_path / "plan.json")
    assert ran.status == 2
    assert "strange.onnx" in ran.stderr


def test_weights_that_old_models_list_as_inputs_may_shrink() -> None:
    model = dense(ir=3, listed=", float[5, 8] first, float[8, 3] second")
    small, plan = pruned(model)
    assert [str(value.shape) for value in small.ir.graph.inputs] == ["[N,5]", "[5,4]", "[4,3]"]
    assert onnxadmm.verify(model, small, plan).passed


def test_a_plan_that_removes_nothing_from_a_pruned_model_is_verified() -> None:
    once, _ = pruned(dense())
    model = onnxadmm.load(to_proto(once))
    plan = onnxadmm.rank(model, ratio=0.01)
    assert plan.removed_count == 0
    assert onnxadmm.verify(model, onnxadmm.shrink(model, plan), plan).passed
