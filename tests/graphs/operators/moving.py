"""Blocks that cut, pick, repeat, pad, join and place."""

import numpy as np
from onnx import numpy_helper

from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.operators.registry import (
    ANY_OPSET,
    Port,
    block,
    image4,
    number,
    per_channel,
    port,
    project,
    to_float,
)


def _axis(b: GraphBuilder, x: Port) -> int:
    """The channels' axis, counted from either end."""
    return x.axis if b.choices.chance(50) else x.axis - x.rank


@block("Split", "Split", "Concat")
def split(b: GraphBuilder, x: Port) -> Value:
    """Two or three parts of any sizes, one of them treated, joined in another order."""
    first = b.choices.integer(1, x.channels - 1)
    sizes = [first, x.channels - first]
    if sizes[1] > 1 and b.choices.chance(40):
        sizes = [first, 1, sizes[1] - 1]
    parts = list(b.node("Split", [x, b.integers(*sizes)], {"axis": _axis(b, x)}, outputs=len(sizes)))
    parts[0] = b.one("Tanh", [parts[0]])
    if b.choices.chance(30):
        parts = parts[:-1]
    return b.one("Concat", parts[::-1], {"axis": _axis(b, x)})


@block("Split in equal parts", "Split", fits=lambda x: x.channels % 2 == 0)
def split_evenly(b: GraphBuilder, x: Port) -> Value:
    attributes = {"axis": _axis(b, x)} | ({"num_outputs": 2} if b.opset >= 18 else {})
    first, second = b.node("Split", [x], attributes, outputs=2)
    return b.one(b.choices.pick(("Mul", "Add", "Max")), [b.one("Sigmoid", [first]), second])


@block("Split across", "Split", on=("tokens", "image", "last"), fits=lambda x: x.sizes[0] >= 2)
def split_across(b: GraphBuilder, x: Port) -> Value:
    axis = 2 if x.kind == "image" else 1
    first, second = b.node("Split", [x, b.integers(1, x.shape[axis] - 1)], {"axis": axis}, outputs=2)
    return b.one("Add", [first, second])


def sliced(b: GraphBuilder, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    operands = [x, b.integers(start), b.integers(end), b.integers(axis)]
    return b.one("Slice", [*operands, b.integers(step)] if step != 1 or b.choices.chance(30) else operands)


@block("Slice", "Slice", fits=lambda x: x.channels >= 3)
def run_of_channels(b: GraphBuilder, x: Port) -> Value:
    kind = b.choices.pick(("run", "tail", "stride", "flip", "all but one"))
    if kind == "run":
        start = b.choices.integer(0, x.channels - 2)
        return sliced(b, x, _axis(b, x), start, b.choices.integer(start + 2, x.channels))
    if kind == "tail":
        return sliced(b, x, _axis(b, x), -2, 2**31 - 1)
    if kind == "stride":
        return sliced(b, x, _axis(b, x), b.choices.integer(0, 1), x.channels, 2)
    if kind == "flip":
        return sliced(b, x, _axis(b, x), -1, -(2**31), b.choices.pick((-1, -2)))
    return sliced(b, x, _axis(b, x), 0, -1)


@block("rotation of halves", "Slice", "Neg", "Concat", fits=lambda x: x.channels % 2 == 0)
def rotation(b: GraphBuilder, x: Port) -> Value:
    """x cos + rotate(x) sin, as rotary positions are written out."""
    half = x.channels // 2
    first, second = sliced(b, x, x.axis, 0, half), sliced(b, x, x.axis, half, 2**62)
    turned = b.one("Concat", [b.one("Neg", [second]), first], {"axis": x.axis})
    left = b.one("Mul", [x, per_channel(b, x, "cosine")])
    return b.one("Add", [left, b.one("Mul", [turned, per_channel(b, x, "sine")])])


@block("Gather", "Gather")
def picked(b: GraphBuilder, x: Port) -> Value:
    """Channels in another order, some of them twice, counted from either end, by 32 or 64 bits."""
    count = b.choices.integer(2, x.channels + 1)
    places = [b.choices.integer(-x.channels, x.channels - 1) for _ in range(count)]
    indices = np.asarray(places, b.choices.pick((np.int64, np.int32)))
    return b.one("Gather", [x, b.initializer(indices, "order")], {"axis": _axis(b, x)})


@block("Gather of one", "Gather", "Unsqueeze")
def picked_one(b: GraphBuilder, x: Port) -> Value:
    one = b.one("Gather", [x, number(b, b.choices.integer(0, x.channels - 1))], {"axis": x.axis})
    return b.one("Mul", [x, b.one("Unsqueeze", [one, b.integers(x.axis)])])


@block("Gather across", "Gather", on=("image", "tokens", "last"))
def picked_across(b: GraphBuilder, x: Port) -> Value:
    axis = 2 if x.kind == "image" else 1
    places = [b.choices.integer(0, x.shape[axis] - 1) for _ in range(b.choices.integer(1, 3))]
    return b.one("Gather", [x, b.initializer(np.asarray(places, np.int64), "order")], {"axis": axis})


@block("GatherElements across", "GatherElements", "ArgMax", on=("tokens",), steps=True)
def elements_across(b: GraphBuilder, x: Port) -> Value:
    """The largest of every feature over the tokens."""
    places = b.one("ArgMax", [x], {"axis": 1, "keepdims": 1})
    return b.one("Add", [x, b.one("GatherElements", [x, places], {"axis": 1})])


@block("GatherElements", "GatherElements", on=("flat",), fixed=True, passes=False)
def elements(b: GraphBuilder, x: Port) -> Value:
    places = b.random.integers(0, x.channels, (x.shape[0], 3)).astype(np.int64)
    return b.one("GatherElements", [x, b.initializer(places, "places")], {"axis": 1})


@block("GatherND", "GatherND", "Transpose", on=("image",), fits=image4)
def tuples(b: GraphBuilder, x: Port) -> Value:
    pairs = np.stack([b.random.integers(0, size, (2, 3)) for size in x.sizes], axis=-1).astype(np.int64)
    y = b.one("Transpose", [x], {"perm": [2, 3, 0, 1]})
    y = b.one("GatherND", [y, b.initializer(pairs, "pairs")])
    return b.one("Transpose", [y], {"perm": [2, 3, 0, 1]})


@block("ScatterND", "ScatterND", "Gather", "Transpose", on=("tokens",))
def scattered_tuples(b: GraphBuilder, x: Port) -> Value:
    rows = [b.choices.integer(0, x.shape[1] - 1)]
    y = b.one("Transpose", [x], {"perm": [1, 0, 2]})
    update = b.one("Tanh", [b.one("Gather", [y, b.integers(*rows)], {"axis": 0})])
    places = b.initializer(np.asarray([[b.choices.integer(0, x.shape[1] - 1)]], np.int64), "places")
    return b.one("Transpose", [b.one("ScatterND", [y, places, update])], {"perm": [1, 0, 2]})


@block("ScatterElements", "ScatterElements", "ArgMin", on=("tokens",), steps=True)
def scattered_elements(b: GraphBuilder, x: Port) -> Value:
    """The smallest of every feature over the tokens is replaced."""
    places = b.one("ArgMin", [x], {"axis": 1, "keepdims": 1})
    updates = b.one("GatherElements", [b.one("Tanh", [x]), places], {"axis": 1})
    return b.one("ScatterElements", [x, places, updates], {"axis": 1})


@block("Scatter", "Scatter", "Shape", "ConstantOfShape", on=("image",), opsets=(9, 10))
def scattered(b: GraphBuilder, x: Port) -> Value:
    filler = np.asarray([b.choices.integer(0, x.shape[2] - 1)], np.int64)
    value = numpy_helper.from_array(filler)
    shape = b.one("Shape", [x])
    (places,) = b.stated("ConstantOfShape", [shape], [(x.shape, 7)], attributes={"value": value})
    return b.one("Scatter", [x, places, b.one("Tanh", [x])], {"axis": 2})


@block("Expand", "Expand")
def expanded(b: GraphBuilder, x: Port) -> Value:
    """A gate that is one number, or one per channel, brought to the channels by Expand."""
    shape = x.channel_shape
    source = b.bias([1] * len(shape) if b.choices.chance(50) else shape)
    target = shape if b.choices.chance(50) else [1] * x.axis + shape
    return b.one("Mul", [x, b.one("Expand", [source, b.integers(*target)])])


@block("one mask for two layers", "Expand")
def expanded_for_two(b: GraphBuilder, x: Port) -> Value:
    """A mask brought to the channels once, and read by two layers that have nothing else in common."""
    mask = b.one("Expand", [b.bias([1] * len(x.channel_shape)), b.integers(*x.channel_shape)])
    other = project(b, port(x.kind, b.one("Mul", [x, mask])), x.channels)
    return b.one("Add", [other, mask])


@block("Expand to a computed shape", "Expand", "Shape")
def expanded_to_shape(b: GraphBuilder, x: Port) -> Value:
    source = b.bias([1] * len(x.channel_shape) if b.choices.chance(50) else x.channel_shape)
    (gate,) = b.stated("Expand", [source, b.one("Shape", [x])], [(x.shape, x.dtype)])
    return b.one("Add", [x, gate])


@block("Tile of channels", "Tile")
def tiled(b: GraphBuilder, x: Port) -> Value:
    """Each channel twice: x beside itself."""
    times = [2 if axis == x.axis else 1 for axis in range(x.rank)]
    return b.one("Tile", [x, b.integers(*times)])


@block("Tile of an axis of size one", "Tile", on=("tokens", "flat", "last", "sequence"))
def tiled_single(b: GraphBuilder, x: Port) -> Value:
    gate = b.one("Sigmoid", [project(b, x, 1)])
    return b.one("Mul", [x, b.one("Tile", [gate, b.integers(*[1] * (x.rank - 1), x.channels)])])


@block("Tile across", "Tile", on=("tokens", "image"), fits=lambda x: x.sizes[0] <= 4)
def tiled_across(b: GraphBuilder, x: Port) -> Value:
    axis = 2 if x.kind == "image" else 1
    return b.one("Tile", [x, b.integers(*(2 if index == axis else 1 for index in range(x.rank)))])


@block("Pad of channels", "Pad")
def padded(b: GraphBuilder, x: Port) -> Value:
    before, after = b.choices.pick(((0, 2), (1, 1), (2, 0)))
    pads = [(before, after) if axis == x.axis else (0, 0) for axis in range(x.rank)]
    flat = b.integers(*(first for first, _ in pads), *(second for _, second in pads))
    if b.opset >= 18 and b.choices.chance(40):
        return b.one("Pad", [x, b.integers(before, after), b.scalar(0.6), b.integers(_axis(b, x))])
    return b.one("Pad", [x, flat, b.scalar(0.6)] if b.choices.chance(50) else [x, flat])


@block("Pad across", "Pad", on=("image", "tokens", "last"), fits=lambda x: 2 <= x.sizes[-1] <= 6)
def padded_across(b: GraphBuilder, x: Port) -> Value:
    axis = x.rank - 1 if x.kind == "image" else x.rank - 2
    mode = b.choices.pick(("constant", "edge", "reflect", *(("wrap",) if b.opset >= 19 else ())))
    pads = [1 if index == axis else 0 for index in range(x.rank)]
    return b.one("Pad", [x, b.integers(*pads, *pads)], {"mode": mode})


@block("Concat", "Concat")
def joined(b: GraphBuilder, x: Port) -> Value:
    parts: list[Value] = [x, project(b, x, b.choices.integer(1, 4))]
    if b.choices.chance(40):
        parts.append(b.one("Tanh", [b.choices.pick(parts)]))
    return b.one("Concat", parts[::-1] if b.choices.chance(50) else parts, {"axis": _axis(b, x)})


@block("Concat across", "Concat", on=("tokens", "image", "last"), fits=lambda x: max(x.sizes) <= 5)
def joined_across(b: GraphBuilder, x: Port) -> Value:
    return b.one("Concat", [x, project(b, x, x.channels)], {"axis": 2 if x.kind == "image" else 1})


@block("Concat with a constant", "Concat", fixed=True)
def joined_with_constant(b: GraphBuilder, x: Port) -> Value:
    shape = [2 if axis == x.axis else size for axis, size in enumerate(x.shape)]
    return b.one("Concat", [b.bias(shape, "constant"), x], {"axis": _axis(b, x)})


@block("Squeeze and Unsqueeze", "Squeeze", "Unsqueeze")
def squeezed(b: GraphBuilder, x: Port) -> Value:
    axis = b.choices.integer(1, x.rank)
    y = b.one("Softsign", [b.one("Unsqueeze", [x, b.integers(axis)])])
    return b.one("Squeeze", [y, b.integers(axis if b.choices.chance(50) else axis - y.rank)])


@block("channel shuffle", "Reshape", "Transpose", on=("image",), fits=lambda x: x.channels % 2 == 0)
def shuffled(b: GraphBuilder, x: Port) -> Value:
    y = b.one("Reshape", [x, b.integers(-1, 2, x.channels // 2, *x.sizes)])
    y = b.one("Transpose", [y], {"perm": [0, 2, 1, *range(3, y.rank)]})
    return b.one("Reshape", [y, b.integers(0, -1, *x.sizes)])


@block("shuffle of features", "Reshape", "Transpose", on=("tokens", "flat"), fits=lambda x: x.channels % 3 == 0)
def shuffled_features(b: GraphBuilder, x: Port) -> Value:
    y = b.one("Reshape", [x, b.integers(*[0] * (x.rank - 1), 3, -1)])
    y = b.one("Transpose", [y], {"perm": [*range(x.rank - 1), x.rank, x.rank - 1]})
    y = b.one("Mul", [y, b.bias([3])]) if b.choices.chance(50) else y
    return b.one("Reshape", [y, b.integers(*[0] * (x.rank - 1), x.channels)])


@block("batch and channels as one", "Reshape", on=("image",), fits=image4)
def merged_with_batch(b: GraphBuilder, x: Port) -> Value:
    """[N, C, H, W] -> [N*C, 1, H, W], one filter for all, and back."""
    y = b.one("Reshape", [x, b.integers(-1, 1, *x.sizes)])
    y = b.one("Conv", [y, b.weight([1, 1, 3, 3], 9), b.bias([1])], {"pads": [1, 1, 1, 1]})
    return b.one("Reshape", [y, b.integers(-1, x.channels, *x.sizes)])


@block("batch and tokens as one", "Reshape", "MatMul", on=("tokens",))
def merged_tokens(b: GraphBuilder, x: Port) -> Value:
    y = b.one("Reshape", [x, b.integers(-1, x.channels)])
    y = b.one("Relu", [project(b, port("flat", y), b.choices.integer(2, 6))])
    return b.one("Reshape", [y, b.integers(-1, x.shape[1], y.shape[1])])


@block("ReverseSequence", "ReverseSequence", on=("tokens",), fixed=True, opsets=(13, 21))
def reversed_sequences(b: GraphBuilder, x: Port) -> Value:
    lengths = b.random.integers(1, x.shape[1] + 1, (x.shape[0],)).astype(np.int64)
    return b.one("ReverseSequence", [x, b.initializer(lengths, "lengths")], {"batch_axis": 0, "time_axis": 1})


@block("OneHot", "OneHot", "ArgMax", on=("tokens",), steps=True, passes=False)
def one_hot(b: GraphBuilder, x: Port) -> Value:
    """The best feature of every token as a vector, and a layer behind it."""
    best = b.one("ArgMax", [x], {"axis": -1, "keepdims": 0})
    values = b.initializer(np.asarray([-0.5, 1.5], np.float32), "values")
    return b.one("Add", [x, b.one("OneHot", [best, number(b, x.channels), values], {"axis": -1})])


@block("OneHot beside the channels", "OneHot", "ArgMax", on=("image",), steps=True, fits=lambda x: x.rank == 4)
def one_hot_across(b: GraphBuilder, x: Port) -> Value:
    best = b.one("ArgMax", [x], {"axis": 2, "keepdims": 0})
    values = b.initializer(np.asarray([-0.5, 1.5], np.float32), "values")
    return b.one("OneHot", [best, number(b, x.shape[2]), values], {"axis": 2})


@block("Trilu across", "Trilu", on=("image",), opsets=(14, 24), fits=image4)
def triangle_across(b: GraphBuilder, x: Port) -> Value:
    return b.one("Trilu", [x], {"upper": b.choices.integer(0, 1)})


@block("Trilu", "Trilu", on=("tokens",), opsets=(14, 24), passes=False)
def triangle(b: GraphBuilder, x: Port) -> Value:
    return b.one("Trilu", [x, number(b, b.choices.integer(-1, 1))], {"upper": b.choices.integer(0, 1)})


@block("embedding of the best", "Gather", "ArgMax", on=("tokens",), steps=True, passes=False)
def embedded(b: GraphBuilder, x: Port) -> Value:
    """A table looked up by what the tokens say."""
    best = b.one("ArgMax", [x], {"axis": -1, "keepdims": 0})
    table = b.initializer(b.away_from_zero([x.channels, b.choices.integer(3, 6)]), "table")
    return b.one("Gather", [table, best], {"axis": 0})


@block("mask of equal positions", "Equal", "Where", "Expand", on=("tokens",), opsets=ANY_OPSET, steps=True)
def masked_positions(b: GraphBuilder, x: Port) -> Value:
    order = b.initializer(np.arange(x.shape[1], dtype=np.int64)[None, :, None], "positions")
    mask = b.one("Equal", [order, number(b, b.choices.integer(0, x.shape[1] - 1))])
    wide = b.one("Expand", [mask, b.integers(1, x.shape[1], x.channels)])
    return b.one("Where", [wide, per_channel(b, x), b.one("Mul", [x, to_float(b, b.one("Not", [wide]))])])
