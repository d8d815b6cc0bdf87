"""Blocks that work along an axis: reductions, softmax, sorting, running sums, sizes."""

import math

import numpy as np
from onnx import numpy_helper

from tests.graphs import weighted
from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.operators.registry import (
    Kind,
    Port,
    block,
    image4,
    number,
    per_channel,
    port,
    project,
    reduced,
    to_float,
)

_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
_ACROSS: tuple[Kind, ...] = ("image", "tokens", "last")


def _other_axis(x: Port) -> int:
    """An axis that holds no channels and is not the batch."""
    return {"image": x.rank - 1, "sequence": 0}.get(x.kind, 1)


def _argument(b: GraphBuilder, x: Value, operator: str) -> Value:
    if operator == "ReduceLogSum":
        return b.one("Add", [b.one("Abs", [x]), b.scalar(0.5)])
    return b.one("Tanh", [x]) if operator == "ReduceProd" else x


def _register_reduction(name: str) -> None:
    @block(f"{name} across", name, on=_ACROSS)
    def across(b: GraphBuilder, x: Port) -> Value:
        """Over one axis or all axes that hold no channels; kept or put back, and added to x."""
        axes = [_other_axis(x)] if b.choices.chance(50) else list(range(x.rank))[1:]
        axes = [axis for axis in axes if axis != x.axis]
        keep = b.choices.chance(50)
        y = reduced(b, name, _argument(b, x, name), axes, keep=keep)
        y = y if keep else b.one("Unsqueeze", [y, b.integers(*axes)])
        return b.one("Add", [b.one("Tanh", [y]), x])

    @block(f"{name} of the channels", name, passes=False)
    def along(b: GraphBuilder, x: Port) -> Value:
        y = reduced(b, name, _argument(b, x, name), [x.axis], keep=True)
        return b.one("Mul", [x, b.one("Sigmoid", [y])])


for _name in _REDUCTIONS:
    _register_reduction(_name)


def _register_softmax(name: str, *, steps: bool) -> None:
    @block(f"{name} of the channels", name, passes=False, steps=steps)
    def along(b: GraphBuilder, x: Port) -> Value:
        return b.one("Add", [x, b.one(name, [x], {"axis": x.axis})])

    @block(f"{name} across", name, on=_ACROSS, steps=steps)
    def across(b: GraphBuilder, x: Port) -> Value:
        return b.one("Add", [x, b.one(name, [x], {"axis": _other_axis(x)})])


_register_softmax("Softmax", steps=False)
_register_softmax("LogSoftmax", steps=False)
_register_softmax("Hardmax", steps=True)


def _register_argument(name: str) -> None:
    @block(f"{name} of the channels", name, passes=False, steps=True)
    def along(b: GraphBuilder, x: Port) -> Value:
        best = to_float(b, b.one(name, [x], {"axis": x.axis, "keepdims": 1}))
        return b.one("Add", [x, b.one("Mul", [best, b.scalar(0.1)])])

    @block(f"{name} across", name, on=_ACROSS, steps=True)
    def across(b: GraphBuilder, x: Port) -> Value:
        best = to_float(b, b.one(name, [x], {"axis": _other_axis(x), "keepdims": 1}))
        return b.one("Add", [x, b.one("Mul", [best, b.scalar(0.1)])])


_register_argument("ArgMax")
_register_argument("ArgMin")


@block("TopK of the channels", "TopK", passes=False, steps=True)
def largest(b: GraphBuilder, x: Port) -> Value:
    return b.node("TopK", [x, b.integers(2)], {"axis": x.axis}, outputs=2)[0]


@block("TopK across", "TopK", on=_ACROSS, steps=True)
def largest_across(b: GraphBuilder, x: Port) -> Value:
    values, places = b.node("TopK", [x, b.integers(1)], {"axis": _other_axis(x)}, outputs=2)
    return b.one("Add", [values, to_float(b, places)]) if b.choices.chance(40) else values


@block("CumSum of the channels", "CumSum", passes=False)
def running_sum(b: GraphBuilder, x: Port) -> Value:
    return b.one("Tanh", [b.one("CumSum", [x, number(b, x.axis)], {"reverse": b.choices.integer(0, 1)})])


@block("CumSum across", "CumSum", on=_ACROSS)
def running_sum_across(b: GraphBuilder, x: Port) -> Value:
    attributes = {"exclusive": b.choices.integer(0, 1)}
    return b.one("Tanh", [b.one("CumSum", [x, number(b, _other_axis(x))], attributes)])


# What is made of sizes


@block("Shape", "Shape", "Gather", "Unsqueeze", "Concat", "Reshape", on=("image",), to="flat",
       fits=lambda x: math.prod(x.shape[1:]) <= 160)  # fmt: skip
def flattened_by_shape(b: GraphBuilder, x: Port) -> Value:
    """Flatten as TorchScript writes a view: every size read from Shape, multiplied, joined."""
    shape = b.one("Shape", [x])
    parts = [b.one("Gather", [shape, number(b, axis)], {"axis": 0}) for axis in range(x.rank)]
    rest = parts[1]
    for part in parts[2:]:
        rest = b.one("Mul", [rest, part])
    sizes = [b.one("Unsqueeze", [part, b.integers(0)]) for part in (parts[0], rest)]
    return b.reshaped(x, b.one("Concat", sizes, {"axis": 0}), (x.shape[0], int(np.prod(x.shape[1:]))))


@block("sizes computed and copied", "Shape", "Slice", "Concat", "Reshape", on=("image",))
def merged_by_shape(b: GraphBuilder, x: Port) -> Value:
    """[N, C, ...] -> [N, C, positions] and back to the shape that was read before."""
    shape = b.one("Shape", [x])
    front = b.one("Slice", [shape, b.integers(0), b.integers(2)])
    target = b.one("Concat", [front, b.integers(-1)], {"axis": 0})
    y = b.reshaped(x, target, (*x.shape[:2], int(np.prod(x.sizes))))
    y = b.one("Add", [y, b.bias([x.channels, 1])])
    return b.reshaped(y, shape, x.shape)


@block("size as a number", "Shape", "Sqrt", "Div", opsets=(15, 24))
def divided_by_size(b: GraphBuilder, x: Port) -> Value:
    """Scaled by the root of how many channels there are, which does not change when some go."""
    size = b.one("Shape", [x], {"start": x.axis, "end": x.axis + 1})
    return b.one("Div", [x, b.one("Sqrt", [to_float(b, size)])])


@block("size as a number in an older way", "Shape", "Gather", "Cast", "Div")
def divided_by_gathered_size(b: GraphBuilder, x: Port) -> Value:
    size = b.one("Gather", [b.one("Shape", [x]), number(b, x.axis)], {"axis": 0})
    return b.one("Div", [x, to_float(b, size)])


@block("Size", "Size", passes=False)
def divided_by_all(b: GraphBuilder, x: Port) -> Value:
    return b.one("Div", [x, b.one("Log", [to_float(b, b.one("Size", [x]))])])


@block("ConstantOfShape", "ConstantOfShape", "Shape")
def filled(b: GraphBuilder, x: Port) -> Value:
    """As many ones as x has positions, made while running."""
    value = numpy_helper.from_array(np.asarray([0.5], np.float32))
    (ones,) = b.stated("ConstantOfShape", [b.one("Shape", [x])], [(x.shape, 1)], attributes={"value": value})
    return b.one("Add", [x, ones])


@block("ConstantOfShape of known sizes", "ConstantOfShape")
def filled_known(b: GraphBuilder, x: Port) -> Value:
    value = numpy_helper.from_array(np.asarray([0.7], np.float32))
    sizes = b.integers(*x.channel_shape)
    (ones,) = b.stated("ConstantOfShape", [sizes], [(x.channel_shape, 1)], attributes={"value": value})
    return b.one("Mul", [x, ones])


@block("Range", "Range", on=("tokens",), passes=False)
def numbered(b: GraphBuilder, x: Port) -> Value:
    """Positions made by Range from a size that was read."""
    count = b.one("Gather", [b.one("Shape", [x]), number(b, 2)], {"axis": 0})
    (order,) = b.stated("Range", [number(b, 0), count, number(b, 1)], [((x.channels,), 7)])
    return b.one("Add", [x, b.one("Mul", [to_float(b, order), b.scalar(0.1)])])


@block("Range across", "Range", on=("tokens",))
def numbered_across(b: GraphBuilder, x: Port) -> Value:
    count = b.one("Gather", [b.one("Shape", [x]), number(b, 1)], {"axis": 0})
    (order,) = b.stated("Range", [number(b, 0), count, number(b, 1)], [((x.shape[1],), 7)])
    column = b.one("Unsqueeze", [b.one("Sin", [to_float(b, order)]), b.integers(1)])
    return b.one("Add", [x, column])


@block("EyeLike", "EyeLike", on=("flat",), passes=False)
def eye(b: GraphBuilder, x: Port) -> Value:
    return b.one("Add", [x, b.one("EyeLike", [x], {"k": b.choices.integer(-1, 1)})])


@block("EyeLike across", "EyeLike", on=("image",), fits=image4)
def eye_across(b: GraphBuilder, x: Port) -> Value:
    """A constant diagonal on the positions of every channel."""
    plane = b.one("EyeLike", [b.initializer(np.ones(x.sizes, np.float32), "plane")])
    return b.one("Add", [x, plane])


@block("NonZero", "NonZero", passes=False, opsets=(13, 21))
def counted(b: GraphBuilder, x: Port) -> Value:
    """How many positions are not zero, by the places that NonZero lists."""
    places = b.stated("NonZero", [b.one("Relu", [x])], [((x.rank, 1), 7)])[0]
    total = reduced(b, "ReduceMean", to_float(b, places), [0, 1], keep=False)
    return b.one("Add", [x, b.one("Tanh", [b.one("Mul", [total, b.scalar(0.1)])])])


@block("spatial attention", "ReduceMean", "ReduceMax", "Concat", on=("image",), passes=False)
def spatial_attention(b: GraphBuilder, x: Port) -> Value:
    """CBAM: mean and maximum over the channels make a gate per position."""
    both = b.one("Concat", [reduced(b, name, x, [1], keep=True) for name in ("ReduceMean", "ReduceMax")], {"axis": 1})
    return b.one("Mul", [x, b.one("Sigmoid", [weighted.conv(b, both, channels=1, keep_size=True)])])


@block("squeeze and excite", "ReduceMean", "Sigmoid", "Mul", on=("image", "last"))
def squeeze_and_excite(b: GraphBuilder, x: Port) -> Value:
    axes = [axis for axis in range(1, x.rank) if axis != x.axis]
    gate = port(x.kind, reduced(b, "ReduceMean", x, axes, keep=True))
    hidden = port(x.kind, b.one("Relu", [project(b, gate, b.choices.integer(1, 4))]))
    return b.one("Mul", [b.one("Sigmoid", [project(b, hidden, x.channels)]), x])


@block("attention over tokens", "Softmax", "ReduceSum", on=("tokens",), to="flat")
def pooled(b: GraphBuilder, x: Port) -> Value:
    """Tokens weighted by a softmax of one number each."""
    scores = b.one("Softmax", [project(b, x, 1)], {"axis": 1})
    y = reduced(b, "ReduceSum", b.one("Mul", [x, scores]), [1], keep=False)
    return b.one("Add", [y, per_channel(b, port("flat", y))])
