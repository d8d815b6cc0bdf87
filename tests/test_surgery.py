"""Pruning without training, where it has to fit to what a compression leaves."""

import numpy as np

import onnxadmm
from onnxadmm.graph.simplify import simplify
from onnxadmm.plan.plan import make_plan
from onnxadmm.units.units import find_units
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
