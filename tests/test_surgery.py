"""Pruning without training, where it has to fit to what a compression leaves."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxadmm
from onnxadmm.graph.simplify import simplify
from onnxadmm.plan.plan import make_plan
from onnxadmm.surgery import shrink_to_file
from onnxadmm.units.units import find_units
from tests.graph.models import small_network
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
