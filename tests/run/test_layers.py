"""Layers before and after, and the sizes of pruned connections, counted by hand."""

import numpy as np

from onnxadmm.bench.profile import NodeTimes, Profile
from onnxadmm.graph.constants import constants_by_name, with_constants
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.report.layers import TensorLine, WeightLine
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.layers import computing_nodes, connections_line, layer_lines, tensor_lines
from onnxadmm.units.units import find_units
from tests.samples_text import parse_sample

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[N,3,4,4] x) => (float[N,2] y)
<float[4,3,3,3] W1, float[4] B1, float[4] S, float[4] T, float[4] M, float[4] V, float[2,16] W2>
{
   h = Conv (x, W1, B1)
   n = BatchNormalization (h, S, T, M, V)
   f = Flatten (n)
   w = Transpose <perm = [1, 0]> (W2)
   y = MatMul (f, w)
}
"""


def network() -> Model:
    return from_proto(parse_sample(NETWORK))


def test_every_layer_has_its_costs_before_and_after_and_weights_count_where_they_are_used() -> None:
    model = network()
    units = find_units(model)
    keep = np.array([True, False, True, True])
    small = shrink(model, units, keep)
    times = (NodeTimes({"h": 2.0, "y": 1.0}, 0.5), NodeTimes({"h": 1.5}, 0.25))
    lines = layer_lines(model, units, keep, small, find_units(small), Profile(8, 1, 10, times))
    told = {line.name: line for line in lines}
    assert list(told) == ["h", "n", "y"]
    conv, norm, product = lines
    assert (conv.operator, conv.group, conv.units_before, conv.units_after) == ("Conv", "W1", 4, 3)
    assert (conv.macs_before, conv.macs_after) == (4 * 27 * 4, 3 * 27 * 4)
    assert (conv.parameters_before, conv.parameters_after) == (112, 84)
    assert (norm.macs_before, norm.parameters_before, norm.parameters_after) == (0, 16, 12)
    assert (product.macs_before, product.macs_after) == (32, 24)
    assert (product.parameters_before, product.parameters_after) == (32, 24)
    assert (conv.ms_before, conv.ms_after, product.ms_before, product.ms_after) == (2.0, 1.5, 1.0, None)
    assert computing_nodes(units) == {"h", "y"}


def test_pruned_connections_are_counted_by_their_size_and_those_of_removed_units_are_not() -> None:
    weight = np.array([[3.0, -1.0, 1.0, 0.0]] * 2, np.float32)  # of two units, the second of which goes
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,2] y) <float[2,4] W1, float[2,2] W2>
    { h = Gemm <transB = 1> (x, W1)  r = Relu (h)  y = MatMul (r, W2) }"""
    model = from_proto(parse_sample(text))
    model = with_constants(model, {"W1": weight})
    zeros = np.array([[False, True, True, True], [True] * 4])
    units = find_units(model)
    line = connections_line(model, units, np.array([True, False]), {"W1": zeros})
    assert line is not None
    assert line.weights == (WeightLine("W1", kept=1, pruned=3),)
    scale = np.sqrt(11 / 4)
    places = [np.searchsorted(line.edges, size / scale, side="right") - 1 for size in (0.0, 1.0, 3.0)]
    assert [line.pruned[place] for place in places] == [1, 2, 0]
    assert [line.kept[place] for place in places] == [0, 0, 1]
    assert sum(line.kept) + sum(line.pruned) == 4


def test_all_connections_are_counted_however_large_they_are() -> None:
    model = network()
    units = find_units(model)
    shape = constants_by_name(model)["W2"].shape
    assert shape is not None
    weight = np.zeros((2, 16), np.float32)
    weight[0, 0] = 1000.0
    model = with_constants(model, {"W2": weight})
    line = connections_line(model, units, np.ones(4, np.bool_), {"W2": weight == 0})
    assert line is not None
    assert (line.kept[-1], sum(line.kept), sum(line.pruned)) == (1, 1, 31)


def test_a_run_that_left_connections_alone_has_no_such_line() -> None:
    model = network()
    assert connections_line(model, find_units(model), np.ones(4, np.bool_), {}) is None


def test_what_goes_in_and_out_has_its_name_type_and_shape() -> None:
    fed, given = tensor_lines(network())
    assert fed == (TensorLine("x", "float32", ("N", 3, 4, 4)),)
    assert given == (TensorLine("y", "float32", ("N", 2)),)
