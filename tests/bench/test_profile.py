"""Times of nodes, as onnxruntime's own profile tells them: of the right nodes, whatever it fuses."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.bench.profile import NodeTimes, _assigned, node_name, profile_nodes
from onnxadmm.graph.model import Model, from_proto
from tests.bench.models import dense
from tests.samples_text import parse_sample

CONVOLUTIONS = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[N,3,24,24] x) => (float[N,8] y)
<float[16,3,3,3] W1, float[16] B1, float[32,16,3,3] W2, float[32] B2, float[32,8] W3, float[8] B3>
{
   a = Conv (x, W1, B1)
   b = Relu (a)
   c = MaxPool <kernel_shape = [2, 2]> (b)
   d = Conv (c, W2, B2)
   e = Relu (d)
   f = GlobalAveragePool (e)
   g = Flatten (f)
   h = MatMul (g, W3)
   i = Add (h, B3)
   y = Relu (i)
}
"""
LAYERS = frozenset(("a", "d", "h"))


def convolutions() -> Model:
    return from_proto(parse_sample(CONVOLUTIONS))


def test_fused_nodes_and_those_in_another_layout_count_for_the_layer_in_them() -> None:
    model = convolutions()
    profile = profile_nodes([model, model], [LAYERS, LAYERS], batch=8, threads=1, seconds=0.02)
    assert profile.runs >= 5
    for times in profile.models:
        assert set(times.by_node) == LAYERS
        assert all(spent > 0 for spent in times.by_node.values())
        assert times.other_ms > 0  # the pooling
    assert node_name(next(iter(model.ir.graph))) == "a", "the model itself was left as it is"


def test_names_that_would_break_the_profile_do_not_reach_it() -> None:
    bad = 'quo"te\n@99@\\\u202e'
    proto = parse_sample(CONVOLUTIONS)
    for node in proto.graph.node:
        node.name = ""
        node.input[:] = [f"{name}{bad}" if name in "abcdefghi" else name for name in node.input]
        node.output[:] = [f"{name}{bad}" if name != "y" else name for name in node.output]
    wanted = frozenset(f"{name}{bad}" for name in LAYERS)
    (times,) = profile_nodes([from_proto(proto)], [wanted], batch=8, threads=1, seconds=0.02).models
    assert set(times.by_node) == wanted


def test_a_larger_layer_takes_longer() -> None:
    wide, narrow = dense(256, inner=2048), dense(256, inner=16)
    wanted = frozenset(("h1", "y"))
    large, small = profile_nodes([wide, narrow], [wanted, wanted], batch=64, threads=1, seconds=0.1).models
    assert large.by_node["h1"] > 3 * small.by_node["h1"]


def looping() -> Model:
    """A loop of matrix products, as many as the input n says."""
    body = onnx.parser.parse_graph(
        "body (int64 i, bool on, float[4,4] h) => (bool on2, float[4,4] k) { on2 = Identity (on)  k = MatMul (h, h) }"
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 4]) for name in ("x", "y"))
    n = helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [])
    graph = helper.make_graph(nodes, "g", [x, n], [y])
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_nodes_inside_of_a_loop_are_not_counted_beside_it_and_inputs_that_are_given_are_used() -> None:
    spent = []
    for count in (1, 300):
        inputs = {"n": count, "x": np.zeros(4)}
        wanted = [frozenset(("loop",))]
        (times,) = profile_nodes([looping()], wanted, batch=4, threads=1, seconds=0.02, inputs=inputs).models
        assert set(times.by_node) == {"loop"}
        assert times.other_ms < times.by_node["loop"]
        spent.append(times.by_node["loop"])
    assert spent[1] > 5 * spent[0]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("@3@", {"d": 1.0}),
        ("fused @3@", {"d": 1.0}),
        ("@4@0_nchwc", {"d": 1.0}),
        ("@4@0_nchwc_token_7", {"d": 1.0}),
        ("@2@0_nchwc", {"a": 1.0}),  # nothing of its own is told of the Relu and the Conv before
        ("ReorderOutput", {}),
    ],
)
def test_a_profiled_name_is_the_nearest_layer_behind_it(name: str, found: dict[str, float]) -> None:
    times = _assigned({name: 1.0}, convolutions(), LAYERS)
    assert times == NodeTimes(found, 0.0 if found else 1.0)


def test_a_layer_that_is_told_of_by_itself_does_not_take_the_time_of_what_follows() -> None:
    times = _assigned({"@1@0_nchwc": 1.0, "@2@0_nchwc": 2.0}, convolutions(), LAYERS)
    assert times == NodeTimes({"a": 1.0}, 2.0)
