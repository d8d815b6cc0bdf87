"""Steps that pool, pad, cut or rearrange: they move units about, or repeat them, without mixing channels."""

import math

import numpy as np

from tests.graphs.builder import Attribute, GraphBuilder, Value


def pool(b: GraphBuilder, x: Value) -> Value:
    """Max, Average or Lp pooling with every attribute; sometimes over the whole extent."""
    operator = b.choices.weighted(((5, "MaxPool"), (5, "AveragePool"), (2, "LpPool")))
    spatial = x.shape[2:]
    if min(spatial) < 2:
        return global_pool(b, x)
    kernel = [b.choices.pick([size for size in (2, 3) if size <= extent]) for extent in spatial]
    attributes: dict[str, Attribute] = {"kernel_shape": kernel}
    if b.choices.chance(50):
        attributes["strides"] = [b.choices.pick((1, 2)) for _ in spatial]
    if operator == "LpPool":
        attributes["p"] = 2
        return b.one("LpPool", [x], attributes)
    if b.choices.chance(15):
        b.features.add("pool auto_pad")
        attributes["auto_pad"] = b.choices.pick(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif b.choices.chance(40):
        attributes["pads"] = [b.choices.integer(0, 1) for _ in kernel * 2]
        if operator == "AveragePool":
            attributes["count_include_pad"] = b.choices.integer(0, 1)
    elif b.choices.chance(20):
        b.features.add("pool ceil_mode")
        attributes["ceil_mode"] = 1
    return b.one(operator, [x], attributes)


def global_pool(b: GraphBuilder, x: Value) -> Value:
    """One value per channel, spatial axes kept at 1: a global pool, or a reduction as the dynamo exporter writes it."""
    operator = b.choices.weighted(
        ((4, "GlobalAveragePool"), (2, "GlobalMaxPool"), (1, "GlobalLpPool"), (4, "ReduceMean"), (1, "ReduceMax"))
    )
    if operator.startswith("Global"):
        return b.one(operator, [x])
    return reduce_spatial(b, x, operator, keep=True)


def reduce_spatial(b: GraphBuilder, x: Value, operator: str, *, keep: bool) -> Value:
    """ReduceMean or ReduceMax over the axes after the second, axes as an attribute or an input, of either sign."""
    axes = list(range(2, x.rank))
    if b.choices.chance(50):
        axes = [axis - x.rank for axis in axes]
    attributes: dict[str, Attribute] = {}
    if not keep or b.choices.chance(50):
        attributes["keepdims"] = int(keep)
    if b.opset >= 18:
        return b.one(operator, [x, b.integers(*axes)], attributes)
    return b.one(operator, [x], {"axes": axes, **attributes})


def pad_spatial(b: GraphBuilder, x: Value) -> Value:
    """Pad the spatial axes with zeros, another number, edges or reflections."""
    if max(x.shape[2:]) > 6:
        return pool(b, x)
    before = [b.choices.integer(0, 1) for _ in x.shape[2:]]
    after = [b.choices.integer(0, 1) for _ in x.shape[2:]]
    mode = b.choices.weighted(((6, "constant"), (2, "edge"), (2, "reflect")))
    if mode == "reflect" and min(x.shape[2:]) < 2:
        mode = "edge"
    attributes: dict[str, Attribute] = {} if mode == "constant" else {"mode": mode}
    b.features.add(f"Pad {mode}")
    filler = b.scalar(0.5) if mode == "constant" and b.choices.chance(40) else None
    if b.opset >= 18 and b.choices.chance(40):
        b.features.add("Pad with axes")
        axes = b.integers(*[axis - x.rank for axis in range(2, x.rank)])
        return b.one("Pad", [x, b.integers(*before, *after), filler, axes], attributes)
    pads = b.integers(0, 0, *before, 0, 0, *after)
    return b.one("Pad", [x, pads] if filler is None else [x, pads, filler], attributes)


def pad_channels(b: GraphBuilder, x: Value, before: int, after: int) -> Value:
    """New channels of a constant on one side or both, as a padded shortcut has them."""
    b.features.add("Pad channels")
    rest = [0] * (x.rank - 2)
    pads = b.integers(0, before, *rest, 0, after, *rest)
    return b.one("Pad", [x, pads, b.scalar(b.choices.pick((0.0, 0.6)))] if b.choices.chance(50) else [x, pads])


def cut(b: GraphBuilder, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Slice one axis."""
    inputs = [x, b.integers(start), b.integers(stop), b.integers(axis if b.choices.chance(70) else axis - x.rank)]
    return b.one("Slice", [*inputs, b.integers(step)] if step != 1 or b.choices.chance(30) else inputs)


def slice_channels(b: GraphBuilder, x: Value) -> Value:
    """A run of channels, every second one, or all of them backwards."""
    count = x.shape[1]
    if count < 3:
        return flip(b, x)
    b.features.add("Slice channels")
    kind = b.choices.pick(("run", "tail", "stride", "flip"))
    if kind == "run":
        start = b.choices.integer(0, count - 2)
        return cut(b, x, 1, start, b.choices.integer(start + 1, count))
    if kind == "tail":
        return cut(b, x, 1, -2, 2**31 - 1)
    if kind == "stride":
        return cut(b, x, 1, b.choices.integer(0, 1), count, 2)
    return flip(b, x)


def flip(b: GraphBuilder, x: Value) -> Value:
    """Channels in reverse order."""
    return cut(b, x, 1, -1, -(2**31), -1)


def slice_spatial(b: GraphBuilder, x: Value) -> Value:
    if x.shape[-1] < 3:
        return x
    return cut(b, x, x.rank - 1, b.choices.integer(0, 1), x.shape[-1], b.choices.pick((1, 2)))


def split(b: GraphBuilder, x: Value) -> tuple[Value, Value]:
    """Channels in two parts, equal or not."""
    count = x.shape[1]
    even = count % 2 == 0 and b.choices.chance(60)
    b.features.add("Split even" if even else "Split uneven")
    if even and b.opset >= 18 and b.choices.chance(50):
        first, second = b.node("Split", [x], {"axis": 1, "num_outputs": 2}, outputs=2)
    elif even and b.opset < 18 and b.choices.chance(50):
        first, second = b.node("Split", [x], {"axis": 1}, outputs=2)
    else:
        size = count // 2 if even else b.choices.integer(1, count - 1)
        first, second = b.node("Split", [x, b.integers(size, count - size)], {"axis": 1 - x.rank}, outputs=2)
    return first, second


def there_and_back(b: GraphBuilder, x: Value) -> Value:
    """Channels last and back, with a bias on the last axis in between."""
    last = [0, *range(2, x.rank), 1]
    first = [0, x.rank - 1, *range(1, x.rank - 1)]
    y = b.one("Transpose", [x], {"perm": last})
    if b.choices.chance(70):
        y = b.one("Add", [y, b.bias([x.shape[1]])])
    return b.one("Transpose", [y], {"perm": first})


def squeeze_and_back(b: GraphBuilder, x: Value) -> Value:
    """Unsqueeze and Squeeze: a new axis before, after or among the others, gone again."""
    axis = b.choices.integer(1, x.rank)
    y = b.one("Relu", [b.one("Unsqueeze", [x, b.integers(axis)])])
    return b.one("Squeeze", [y, b.integers(axis if b.choices.chance(50) else axis - y.rank)])


def merge_spatial_and_back(b: GraphBuilder, x: Value) -> Value:
    """Reshape to [N, C, positions] and back, with 0, -1 or explicit numbers."""
    channels, spatial = x.shape[1], x.shape[2:]
    merged = b.choices.pick(((0, 0, -1), (0, channels, -1), (-1, channels, math.prod(spatial))))
    y = b.one("Reshape", [x, b.integers(*merged)])
    if b.choices.chance(60):
        y = b.one("Add", [y, b.bias([channels, 1])])
    back = b.choices.pick(((0, 0, *spatial), (0, -1, *spatial), (-1, channels, *spatial)))
    return b.one("Reshape", [y, b.integers(*back)])


def shuffle(b: GraphBuilder, x: Value) -> Value:
    """Channel shuffle: [N, g*k, ...] -> [N, g, k, ...] -> [N, k, g, ...] -> [N, g*k, ...]."""
    channels, spatial = x.shape[1], x.shape[2:]
    divisors = [number for number in (2, 3, 4) if channels % number == 0 and channels > number]
    if not divisors:
        return there_and_back(b, x)
    b.features.add("channel shuffle")
    groups = b.choices.pick(divisors)
    y = b.one("Reshape", [x, b.integers(-1, groups, channels // groups, *spatial)])
    y = b.one("Transpose", [y], {"perm": [0, 2, 1, *range(3, y.rank)]})
    return b.one("Reshape", [y, b.integers(*b.choices.pick(((0, -1, *spatial), (-1, channels, *spatial))))])


def flatten(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> [N, features], in one of the many ways exporters write it."""
    features = math.prod(x.shape[1:])
    ways = ["Flatten", "Reshape", "channels last", "odd axis"]
    if x.rank > 3:
        ways.append("two steps")
    if min(x.shape[2:]) == max(x.shape[2:]) == 1:
        ways.append("Squeeze")
    way = b.choices.pick(ways)
    b.features.add(f"flatten by {way}")
    if way == "Squeeze":
        return b.one("Squeeze", [x, b.integers(*range(2, x.rank))])
    if way == "channels last":
        x = b.one("Transpose", [x], {"perm": [0, *range(2, x.rank), 1]})
    if way == "two steps":
        # [N, C, H, W] -> [N, C, H*W] -> [N, C*H*W]
        x = b.one("Reshape", [x, b.integers(0, 0, -1)])
    if way == "odd axis":
        # Flatten(axis=2): [N, C, H, W] -> [N*C, H*W]: the batch and the channels share one axis.
        x = b.one("Relu", [b.one("Flatten", [x], {"axis": b.choices.pick((2, 3)) if x.rank > 3 else 2})])
        return b.one("Reshape", [x, b.integers(-1, features)])
    if way == "Flatten" or b.choices.chance(30):
        attributes: dict[str, Attribute] = b.choices.pick(({}, {"axis": 1}, {"axis": 1 - x.rank}))
        return b.one("Flatten", [x], attributes)
    targets = [(0, -1), (-1, features), (0, features)]
    if not b.symbolic_batch:
        targets += [(b.batch, -1), (b.batch, features)]
    target = b.choices.pick(targets)
    attributes = {"allowzero": 1} if b.opset >= 14 and 0 not in target and b.choices.chance(50) else {}
    if attributes:
        b.features.add("Reshape allowzero")
    return b.one("Reshape", [x, b.integers(*target)], attributes)


def reduce_flat(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> [N, C] by a mean over positions that drops its axes."""
    return reduce_spatial(b, x, b.choices.weighted(((5, "ReduceMean"), (1, "ReduceMax"))), keep=False)


def dynamic_flatten(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> [N, features] through Shape, Gather, Unsqueeze and Concat, as TorchScript writes `.view`."""
    b.features.add("flatten through Shape")
    zero = b.initializer(np.asarray(0, np.int64), "index")
    batch = b.one("Gather", [b.one("Shape", [x]), zero], {"axis": 0})
    batch = b.one("Unsqueeze", [batch, b.integers(0)])
    tail = b.integers(b.choices.pick((-1, math.prod(x.shape[1:]))))
    target = b.one("Concat", [batch, tail], {"axis": 0})
    return b.reshaped(x, target, (x.shape[0], math.prod(x.shape[1:])))


def tokens(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> [N, positions, C], as a vision transformer cuts its patches."""
    b.features.add("tokens")
    y = b.one("Reshape", [x, b.integers(*b.choices.pick(((0, 0, -1), (0, x.shape[1], -1))))])
    return b.one("Transpose", [y], {"perm": [0, 2, 1]})


def fold(b: GraphBuilder, x: Value) -> Value:
    """[N, f] -> [N, c, h, w]: features become channels with a spatial extent."""
    height, width = b.choices.pick(((2, 2), (1, 2), (2, 1), (1, 1)))
    channels = max(1, x.shape[1] // (height * width))
    if channels * height * width != x.shape[1]:
        height, width, channels = 1, 1, x.shape[1]
    b.features.add("features folded back into an image")
    target = b.choices.pick(((0, -1, height, width), (-1, channels, height, width), (0, channels, height, width)))
    return b.one("Reshape", [x, b.integers(*target)])
