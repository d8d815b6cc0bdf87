"""Blocks that are structure rather than operators: functions, branches with a constant condition, subgraphs, shares."""

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from tests.graphs import weighted
from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.operators.registry import Port, block, per_channel, project

_FUNCTION_OPSETS = (17, 21)
_SCALED = """
<domain: "own", opset_import: ["" : {opset}]>
scaled (x, scale, shift) => (y)
{
   m = Mul (x, scale)
   y = Add (m, shift)
}
"""
_LAYER = """
<domain: "own", opset_import: ["" : {opset}]>
layer (x, weight, shift) => (y)
{
   m = MatMul (x, weight)
   s = Add (m, shift)
   y = Tanh (s)
}
"""
_POWERS = """
<domain: "own", opset_import: ["" : {opset}]>
powers (x) => (y, z)
{
   y = Relu (x)
   z = Mul (y, x)
}
"""


@block("function of a scale", "own.scaled", opsets=_FUNCTION_OPSETS)
def scaled(b: GraphBuilder, x: Port) -> Value:
    b.function(_SCALED)
    operands = [x, per_channel(b, x, "scale"), per_channel(b, x)]
    return b.stated("scaled", operands, [(x.shape, x.dtype)], domain="own")[0]


@block("function of a layer", "own.layer", on=("tokens", "flat", "last", "sequence"), opsets=_FUNCTION_OPSETS)
def called_layer(b: GraphBuilder, x: Port) -> Value:
    """The same function twice, with other weights."""
    b.function(_LAYER)
    y: Value = x
    for count in (b.choices.integer(2, 6), b.choices.integer(2, 6)):
        operands = [y, b.weight([y.shape[-1], count], y.shape[-1]), b.bias([count])]
        (y,) = b.stated("layer", operands, [((*y.shape[:-1], count), y.dtype)], domain="own")
    return y


@block("function with two results", "own.powers", opsets=_FUNCTION_OPSETS)
def called_powers(b: GraphBuilder, x: Port) -> Value:
    b.function(_POWERS)
    first, second = b.stated("powers", [x], [(x.shape, x.dtype)] * 2, domain="own")
    return b.one("Sub", [second, first])


def _branch(b: GraphBuilder, x: Value, operator: str) -> GraphProto:
    name = b.fresh(f"{operator.lower()}_branch")
    result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(operator, [x.name], [name])], b.fresh("branch"), [], [result])


@block("If with a constant condition", "If", passes=False, opsets=(13, 21))
def conditional(b: GraphBuilder, x: Port) -> Value:
    """Which branch runs is known before running; both read x from outside."""
    condition = b.initializer(np.asarray(b.choices.chance(50)), "condition")
    branches = {"then_branch": _branch(b, x, "Relu"), "else_branch": _branch(b, x, "Tanh")}
    (y,) = b.stated("If", [condition], [(x.shape, x.dtype)], attributes=branches)
    return b.one("Add", [weighted_sum(b, x), y])


def weighted_sum(b: GraphBuilder, x: Port) -> Value:
    return project(b, port_like(x, b.one("Relu", [project(b, x, b.choices.integer(3, 6))])), x.channels)


def port_like(x: Port, value: Value) -> Port:
    return Port(value.name, value.shape, value.dtype, x.kind)


@block("If with a condition that is computed", "If", passes=False, opsets=(13, 21))
def decided(b: GraphBuilder, x: Port) -> Value:
    total = b.one("ReduceSum", [b.one("Tanh", [x])], {"keepdims": 0})
    condition = b.one("Greater", [total, b.scalar(-1e6)])
    branches = {"then_branch": _branch(b, x, "Sigmoid"), "else_branch": _branch(b, x, "Tanh")}
    (y,) = b.stated("If", [condition], [(x.shape, x.dtype)], attributes=branches)
    return b.one("Add", [weighted_sum(b, x), y])


@block("Loop over x", "Loop", passes=False, opsets=(13, 21))
def looped(b: GraphBuilder, x: Port) -> Value:
    """x halved three times by a body that is handed it."""
    names = [b.fresh(name) for name in ("step", "go", "state", "half", "state_out", "go_out")]
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], [names[3]], value=numpy_helper.from_array(np.asarray(0.5, np.float32))),
            helper.make_node("Mul", [names[2], names[3]], [names[4]]),
            helper.make_node("Identity", [names[1]], [names[5]]),
        ],
        b.fresh("body"),
        [
            helper.make_tensor_value_info(names[0], TensorProto.INT64, []),
            helper.make_tensor_value_info(names[1], TensorProto.BOOL, []),
            helper.make_tensor_value_info(names[2], TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info(names[5], TensorProto.BOOL, []),
            helper.make_tensor_value_info(names[4], TensorProto.FLOAT, None),
        ],
    )
    trips = b.initializer(np.asarray(3, np.int64), "trips")
    go = b.initializer(np.asarray(True), "go")
    (y,) = b.stated("Loop", [trips, go, x], [(x.shape, x.dtype)], attributes={"body": body})
    return b.one("Add", [weighted_sum(b, x), y])


@block("Scan", "Scan", on=("sequence",), fixed=True, opsets=(13, 21), passes=False)
def scanned(b: GraphBuilder, x: Port) -> Value:
    """A running sum along time, activated at every step."""
    before, now, after, seen = (b.fresh(name) for name in ("before", "now", "after", "seen"))
    shape = list(x.shape[1:])
    body = helper.make_graph(
        [helper.make_node("Add", [before, now], [after]), helper.make_node("Tanh", [after], [seen])],
        b.fresh("body"),
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (before, now)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (after, seen)],
    )
    first = b.initializer(b.away_from_zero(shape), "start")
    results = [(shape, x.dtype), (x.shape, x.dtype)]
    return b.stated("Scan", [first, x], results, attributes={"body": body, "num_scan_inputs": 1})[1]


@block("shared bias", "Add", "Relu")
def shared_bias(b: GraphBuilder, x: Port) -> Value:
    """One constant in two places ties two layers."""
    shift = b.initializer(b.away_from_zero(x.channel_shape), "shared")
    y = port_like(x, b.one("Relu", [b.one("Add", [x, shift])]))
    return b.one("Add", [project(b, y, x.channels), shift])


@block("two inputs joined", "Concat", on=("tokens", "flat", "image"))
def second_input(b: GraphBuilder, x: Port) -> Value:
    """Another input of the graph beside x, along the channels."""
    b.features.add("two inputs")
    shape = [2 if axis == x.axis else size for axis, size in enumerate(x.shape)]
    return b.one("Concat", [x, b.input(shape[1:])], {"axis": x.axis})


@block("second input added", "Add", on=("tokens", "flat", "image"), passes=False)
def added_input(b: GraphBuilder, x: Port) -> Value:
    """x + input locks x; two layers behind it are free."""
    b.features.add("two inputs")
    y = port_like(x, b.one("Add", [x, b.input(x.shape[1:])]))
    return weighted_sum(b, y)


@block("constant that is computed", "Mul", "Exp", on=("tokens", "flat"))
def computed_constant(b: GraphBuilder, x: Port) -> Value:
    """A scale stored as its logarithm, and a weight behind an addition, which hides its zeros."""
    scale = b.one("Exp", [b.initializer(b.away_from_zero([x.channels]), "logarithm")])
    y = b.one("Mul", [x, scale])
    return weighted.matmul(b, y, b.choices.integer(2, 5))
