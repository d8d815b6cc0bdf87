"""Pruning without training, where it has to fit to what a compression leaves."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxadmm
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import PlanError
from onnxadmm.graph.constants import stored_bytes
from onnxadmm.graph.simplify import simplify
from onnxadmm.plan.plan import make_plan
from onnxadmm.surgery import shrink_to_file
from onnxadmm.units.units import find_units
from tests.graph.models import small_network
from tests.latency.clock import Clock
from tests.latency.clock import clock as clock
from tests.samples_text import parse_sample

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
nameless (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y)
<float[8, 3, 3, 3] first, float[8] scale, float[8] shift, float[8] mean, float[8] positive_variance,
 float[4, 8, 3, 3] second>
{
  i = Identity (x)
  c = Conv (i, first)
  n = BatchNormalization (c, scale, shift, mean, positive_variance)
  r = Relu (n)
  y = Conv (r, second)
}
"""


def test_a_plan_for_a_simplified_model_fits_when_batch_normalization_is_fused_under_another_name() -> None:
    proto = parse_sample(TEXT)
    # Without names no weight gets its name back once it is fused.
    for node in proto.graph.node:
        node.name = ""
    model = onnxadmm.load(proto)
    ready = simplify(model).model
    units = find_units(ready)
    keep = np.ones(units.count, dtype=np.bool_)
    keep[:3] = False
    plan = make_plan(ready, units, keep, simplified=True)
    small = onnxadmm.shrink(model, plan)
    assert onnxadmm.verify(model, small, plan).passed
    assert "BatchNormalization" in {node.op_type for node in small.ir.graph}


FILLED = """
<ir_version: 8, opset_import: ["" : 17]>
filled (float[N, 6] x) => (float[N, 2] y)
<float[6, 20] W1, float[20, 100] W2, float[100, 2] W3, int64[2] size = {100, 100}>
{
  a = MatMul (x, W1)
  b = MatMul (a, W2)
  F = ConstantOfShape <value = float[1] {0.01}> (size)
  c = MatMul (b, F)
  y = MatMul (c, W3)
}
"""


def test_a_computed_weight_that_needs_more_room_than_the_cut_saves_is_left_to_the_graph(tmp_path: Path) -> None:
    model = onnxadmm.load(parse_sample(FILLED))
    plan = onnxadmm.rank(model, ratio=0.3)
    assert plan.ignored == ("W2", "F")
    small = onnxadmm.shrink(model, plan)
    assert "F" not in small.ir.graph.initializers
    assert stored_bytes(small) < stored_bytes(model)
    assert onnxadmm.verify(model, small, plan).passed
    # It pays where much goes: 100 x 100 are then 10 x 10.
    assert onnxadmm.rank(model, ratio=0.9).ignored == ()


def test_a_plan_that_would_make_the_weights_larger_is_refused(tmp_path: Path) -> None:
    model = onnxadmm.load(parse_sample(FILLED))
    units = find_units(model)
    keep = np.ones(units.count, dtype=np.bool_)
    keep[[group.start for group in units.groups]] = False
    plan = make_plan(model, units, keep)
    with pytest.raises(PlanError, match=r"at most 9,296 bytes.*since F is written out to be cut; make the plan anew"):
        shrink_to_file(model, plan, tmp_path / "small.onnx")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_nobody_cuts_are_stored_as_they_were(tmp_path: Path) -> None:
    """A table of small int64 numbers takes a byte each as protobuf packs them, and eight as raw data."""
    proto = parse_sample(TEXT)
    proto.graph.initializer.append(onnx.helper.make_tensor("table", onnx.TensorProto.INT64, [2000], range(2000)))
    proto.graph.node.append(onnx.helper.make_node("Identity", ["table"], ["t"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("t", onnx.TensorProto.INT64, [2000]))
    onnx.save(proto, tmp_path / "model.onnx")
    plan = onnxadmm.rank(tmp_path / "model.onnx", ratio=0.3)
    size, _ = shrink_to_file(tmp_path / "model.onnx", plan, tmp_path / "small.onnx")
    assert size < (tmp_path / "model.onnx").stat().st_size
    tables = [each for each in onnx.load(tmp_path / "small.onnx").graph.initializer if each.name == "table"]
    assert tables == [each for each in proto.graph.initializer if each.name == "table"]


def test_a_model_that_loses_nothing_is_written_no_larger(tmp_path: Path) -> None:
    path = Path(__file__).parent / "zoo" / "torch_script_resnet_basic.onnx"
    size, _ = shrink_to_file(path, onnxadmm.rank(path, ratio=0.0), tmp_path / "small.onnx")
    assert size <= path.stat().st_size


def test_zeros_that_nobody_pruned_are_written_as_they_were(tmp_path: Path) -> None:
    """A bias of zeros stored sparsely is more than other tools read."""
    proto = small_network(zeros=0.9)
    proto.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(np.zeros(20, np.float32), "gemm.bias"))
    plan = onnxadmm.rank(proto, ratio=0.3)
    shrink_to_file(proto, plan, tmp_path / "small.onnx")
    assert not onnx.load(tmp_path / "small.onnx").graph.sparse_initializer
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"), full_check=True)


@pytest.mark.parametrize("single_file", [False, True])
def test_external_data_stay_external_unless_a_single_file_is_asked_for(single_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_network(), path, save_as_external_data=True, location="w.bin", size_threshold=100)
    shrink_to_file(path, onnxadmm.rank(path, ratio=0.3), tmp_path / "small.onnx", single_file=single_file)
    assert (tmp_path / "small.onnx.data").exists() != single_file
    tensors = onnx.load(tmp_path / "small.onnx", load_external_data=False).graph.initializer
    assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors) != single_file


# -- who listens ---------------------------------------------------------------------------------------------


def test_calls_that_take_long_say_what_they_do(digits: DemoFiles, clock: Clock) -> None:
    heard: list[object] = []
    plan = onnxadmm.rank(digits.model, {"latency": 0.7}, progress=heard.append)
    steps = sum(event.steps for event in heard if isinstance(event, onnxadmm.Advance))
    assert heard[:2] == [onnxadmm.Stage("analyse", None), onnxadmm.Stage("measure latency", steps)]
    assert isinstance(heard[-1], onnxadmm.Note)
    small = onnxadmm.shrink(digits.model, plan)
    heard.clear()
    assert onnxadmm.verify(digits.model, small, plan, progress=heard.append).passed
    assert heard == [onnxadmm.Stage("read models", None), onnxadmm.Stage("compare outputs", None)]
    other = onnxadmm.with_weights(small, {name: array + 1 for name, array in onnxadmm.weights(small).items()})
    heard.clear()
    assert not onnxadmm.verify(digits.model, other, plan, progress=heard.append).passed
    assert heard[-1] == onnxadmm.Stage("compare structures", None)
    heard.clear()
    onnxadmm.bench([digits.model, small], seconds=0.05, large=4, progress=heard.append)
    assert heard == [onnxadmm.Stage("latency at batch 1", None), onnxadmm.Stage("latency at batch 4", None)]
