"""What a mask takes away beside the units: nothing."""

import numpy as np
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.graph.model import load, to_proto
from onnxadmm.rewrite.mask import zero_connections
from tests.samples_text import parse_sample

# A packed weight whose first rows meet a constant, as learned queries do, and whose others read a layer.
PACKED = """<ir_version: 8, opset_import: ["" : 13]>
packed (float[N,5] x) => (float[3,N] y)
<float[5,6] W1, float[12,6] W, float[3,6] latents, float[8,4] W2, int64[2] sizes = {4, 8}>
{
    h = MatMul (x, W1)
    wq, wk = Split <axis: int = 0> (W, sizes)
    wqt = Transpose <perm: ints = [1, 0]> (wq)
    wkt = Transpose <perm: ints = [1, 0]> (wk)
    q = MatMul (latents, wqt)
    k = MatMul (h, wkt)
    p = MatMul (k, W2)
    pt = Transpose <perm: ints = [1, 0]> (p)
    s = MatMul (q, pt)
    y = Softmax <axis: int = 0> (s)
}"""


def test_what_else_is_computed_from_a_masked_weight_keeps_its_value() -> None:
    model = parse_sample(PACKED)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    plan = oa.rank(model, ratio=0.5, ignore=["W2"])
    masked = oa.mask(model, plan)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_proto(masked).graph.initializer}
    gone = ~held["wk"].any(axis=0)
    assert np.count_nonzero(gone) == 3
    np.testing.assert_allclose(held["q"], weights["latents"] @ weights["W"][:4].T, rtol=1e-5)
    assert oa.verify(model, oa.shrink(model, plan), plan).passed


# The product of a constant and a weight inside of a function, which is given the weight that a layer reads as well.
INSIDE = """<ir_version: 8, opset_import: ["" : 13, "local" : 1]>
inside (float[N,5] x) => (float[N,3] y)
<float[5,6] W1, float[6,6] W, float[1,6] state, float[6,3] W2>
{
    h = MatMul (x, W1)
    r = Sigmoid (h)
    k = MatMul (r, W)
    q = local.step (state, W)
    s = Add (k, q)
    t = Tanh (s)
    y = MatMul (t, W2)
}
<opset_import: ["" : 13], domain: "local">
step (given, weight) => (result)
{
    product = MatMul (given, weight)
    result = Neg (product)
}"""


def test_what_a_function_computes_from_a_masked_weight_keeps_its_value() -> None:
    model = parse_sample(INSIDE)
    assert [group.name for group in oa.find_groups(model).groups] == ["W1", "W"]
    plan = oa.rank(model, ratio=0.5)
    assert oa.verify(model, oa.shrink(model, plan), plan).passed


def test_what_is_computed_from_a_weight_with_zeroed_connections_keeps_its_value() -> None:
    """As it does where the model is compressed: there it is a constant before any connection goes."""
    text = INSIDE[: INSIDE.index("<opset_import: [")].replace("local.step", "MatMul").replace(', "local" : 1', "")
    model = parse_sample(text)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeroed = to_proto(zero_connections(load(model), {"W": np.eye(6, dtype=np.bool_)}))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in zeroed.graph.initializer}
    assert not held["W"].diagonal().any()
    np.testing.assert_allclose(held["q"], weights["state"] @ weights["W"], rtol=1e-5)
