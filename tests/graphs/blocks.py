"""Steps with branches: residuals, padded shortcuts, concatenation, gates."""

from tests.graphs import elementwise, movement, weighted
from tests.graphs.builder import GraphBuilder, Value


def activated(b: GraphBuilder, x: Value) -> Value:
    """Normalise and activate, each now and then."""
    if b.choices.chance(35):
        x = elementwise.batch_normalization(b, x)
    return elementwise.activation(b, x) if b.choices.chance(80) else x


def residual(b: GraphBuilder, x: Value) -> Value:
    """x + f(x), sometimes with a projection, sometimes f of two layers."""
    b.features.add("residual")
    y = activated(b, weighted.conv(b, x, channels=x.shape[1] if b.choices.chance(50) else None, keep_size=True))
    if y.shape[1] == x.shape[1] and b.choices.chance(50):
        return b.one("Add", [y, x] if b.choices.chance(50) else [x, y])
    y = weighted.conv(b, y, channels=x.shape[1], keep_size=True)
    if b.choices.chance(25):
        b.features.add("residual with projection")
        x = weighted.pointwise(b, x, y.shape[1])
    return activated(b, b.one(b.choices.weighted(((8, "Add"), (1, "Sub"), (1, "Sum"), (1, "Max"))), [x, y]))


def inverted_bottleneck(b: GraphBuilder, x: Value) -> Value:
    """MobileNet's block: widen, depthwise, narrow, add."""
    b.features.add("inverted bottleneck")
    y = activated(b, weighted.pointwise(b, x, b.choices.integer(3, 8)))
    y = activated(b, weighted.depthwise(b, y, keep_size=True))
    if b.choices.chance(30):
        y = squeeze_and_excite(b, y)
    return b.one("Add", [x, weighted.pointwise(b, y, x.shape[1])])


def padded_shortcut(b: GraphBuilder, x: Value) -> Value:
    """A wider residual whose shortcut is cut in space and padded with constant channels."""
    if x.shape[1] > 5 or min(x.shape[2:]) < 2:
        return residual(b, x)
    b.features.add("padded shortcut")
    before, after = b.choices.pick(((1, 1), (0, 2), (2, 0), (1, 2)))
    shortcut = x
    y = x
    for axis in range(2, x.rank):
        if b.choices.chance(50):
            shortcut = movement.cut(b, shortcut, axis, 0, shortcut.shape[axis], 2)
            y = movement.cut(b, y, axis, 0, y.shape[axis], 2)
    y = weighted.conv(b, y, channels=x.shape[1] + before + after, keep_size=True)
    return activated(b, b.one("Add", [y, movement.pad_channels(b, shortcut, before, after)]))


def branches(b: GraphBuilder, x: Value) -> Value:
    """Two or three branches, joined along the channels; one may be x itself, or stand there twice."""
    b.features.add("concatenated branches")
    parts = [activated(b, weighted.conv(b, x, channels=b.choices.integer(1, 4), keep_size=True))]
    parts.append(
        weighted.conv(b, parts[0], channels=b.choices.integer(1, 4), keep_size=True) if b.choices.chance(50) else x
    )
    if b.choices.chance(40):
        parts.append(b.choices.pick((parts[0], x, elementwise.activation(b, x))))
    if not b.symbolic_batch and b.choices.chance(15):
        b.features.add("Concat with a constant")
        parts.append(b.bias([x.shape[0], 2, *x.shape[2:]], "constant"))
    axis = 1 if b.choices.chance(60) else 1 - x.rank
    y = b.one("Concat", parts if b.choices.chance(50) else parts[::-1], {"axis": axis})
    return weighted.pointwise(b, y, b.choices.integer(2, 6)) if y.shape[1] > 10 else activated(b, y)


def spatial_concat(b: GraphBuilder, x: Value) -> Value:
    """Joined along a spatial axis: both sides share their channels."""
    if x.shape[-1] > 4:
        return movement.pool(b, x)
    b.features.add("Concat along a spatial axis")
    return b.one("Concat", [x, elementwise.activation(b, x)], {"axis": -1})


def squeeze_and_excite(b: GraphBuilder, x: Value) -> Value:
    """x * gate(x), the gate one number per channel, in one of the ways exporters write it."""
    b.features.add("squeeze and excite")
    channels, hidden = x.shape[1], b.choices.integer(1, 4)
    ones = [1] * (x.rank - 2)
    if b.choices.chance(50):
        gate = weighted.pointwise(b, movement.global_pool(b, x), hidden)
        gate = weighted.pointwise(b, b.one("Relu", [gate]), channels)
    else:
        gate = weighted.dense(b, movement.reduce_flat(b, x), hidden)
        gate = weighted.dense(b, b.one("Relu", [gate]), channels)
        if b.choices.chance(50):
            gate = b.one("Reshape", [gate, b.integers(*b.choices.pick(((0, -1, *ones), (-1, channels, *ones))))])
        else:
            gate = b.one("Unsqueeze", [gate, b.integers(*range(2, x.rank))])
    gate = b.one(b.choices.pick(("Sigmoid", "HardSigmoid")), [gate])
    return b.one("Mul", [x, gate] if b.choices.chance(50) else [gate, x])


def spatial_gate(b: GraphBuilder, x: Value) -> Value:
    """x * gate(x), the gate one number per position: its single channel broadcasts."""
    b.features.add("spatial gate")
    gate = b.one("Sigmoid", [weighted.pointwise(b, x, 1)])
    if b.choices.chance(30):
        return b.one("Div", [x, b.one("Add", [gate, b.scalar(0.5)])])
    return b.one("Mul", [gate, x])


def gated_halves(b: GraphBuilder, x: Value) -> Value:
    """A gated linear unit: one half of the channels times the sigmoid of the other."""
    if x.shape[1] % 2:
        x = weighted.pointwise(b, x, 4)
    half = x.shape[1] // 2
    if b.choices.chance(50):
        b.features.add("gated halves by Split")
        first, second = b.node("Split", [x, b.integers(half, half)], {"axis": 1}, outputs=2)
    else:
        b.features.add("gated halves by Slice")
        first, second = movement.cut(b, x, 1, 0, half), movement.cut(b, x, 1, half, 2 * half)
    return b.one("Mul", [first, b.one("Sigmoid", [second])])


def split_and_join(b: GraphBuilder, x: Value) -> Value:
    """Split, treat one part, join again: ShuffleNet's and Inception's habit."""
    if x.shape[1] < 2:
        return residual(b, x)
    first, second = movement.split(b, x)
    second = weighted.conv(b, second, channels=b.choices.integer(1, 4), keep_size=True)
    return b.one("Concat", [second, first] if b.choices.chance(50) else [first, second], {"axis": 1})


def token_mixer(b: GraphBuilder, x: Value) -> Value:
    """[N, t, f] -> [N, t, f]: dense layers along either axis, with a residual."""
    b.features.add("token mixer")
    y = weighted.matmul(b, x, b.choices.integer(2, 6))
    y = elementwise.activation(b, y)
    y = weighted.matmul(b, y, x.shape[2])
    return b.one("Add", [x, y])


def flat_residual(b: GraphBuilder, x: Value) -> Value:
    """[N, f] -> [N, f]: two dense layers and a shortcut."""
    b.features.add("dense residual")
    y = activated(b, weighted.dense(b, x, b.choices.integer(2, 8)))
    return b.one("Add", [x, weighted.dense(b, y, x.shape[1])])


def flat_concat(b: GraphBuilder, x: Value) -> Value:
    """[N, f] -> [N, f + g]."""
    b.features.add("concatenated features")
    y = activated(b, weighted.dense(b, x, b.choices.integer(2, 6)))
    return b.one("Concat", [y, x] if b.choices.chance(50) else [x, y], {"axis": b.choices.pick((1, -1))})


def gated_features(b: GraphBuilder, x: Value) -> Value:
    """[N, f] -> [N, g]: a gated linear unit on features."""
    first, second = movement.split(b, weighted.dense(b, x, 2 * b.choices.integer(1, 4)))
    if first.shape != second.shape:
        return b.one("Concat", [b.one("Tanh", [second]), first], {"axis": 1})
    return b.one("Mul", [b.one("Sigmoid", [second]), first])
