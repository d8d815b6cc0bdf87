"""Networks out of blocks: one block alone, or a walk over many with residuals, joins and several outputs."""

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto

from tests.graphs import weighted
from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.choices import Choices, DrawnChoices, SeededChoices
from tests.graphs.network import VOCABULARY
from tests.graphs.operators import (  # noqa: F401  (fill the registry)
    attending,
    features,
    fused,
    images,
    moving,
    pointwise,
    quantised,
    recurring,
    reducing,
    structure,
)
from tests.graphs.operators.registry import Block, Kind, Port, all_blocks, port, project, reduced
from tests.graphs.operators.sampled import register_missing

register_missing()

#: Random networks take their operator set from these; other sets have a few blocks, which the sweep shows.
OPSETS = (17, 18, 21, 13, 14, 15, 16, 19, 20, 23, 24)
#: A port with more numbers than this per sample, or channels than this, is made smaller before the next block.
MOST_NUMBERS = 300
MOST_CHANNELS = 14
_VOLUMES: dict[Kind, tuple[tuple[int, ...], ...]] = {
    "image": ((4, 4), (4, 6), (5, 4), (6,), (3, 2, 4)),
    "last": ((4, 4), (2, 4), (4, 3)),
    "tokens": ((4,), (5,), (3,)),
    "flat": ((),),
    "sequence": ((4,), (3,)),
}


def start(b: GraphBuilder, kind: Kind, channels: int, sizes: tuple[int, ...]) -> Port:
    """An input of the graph and a layer that writes ``channels``, whose weight nothing else shares."""
    into = b.choices.integer(2, 5)
    if kind == "image":
        x = b.input([into, *sizes])
        weight = b.initializer(b.random.normal(0, 0.7, (channels, into, *[1] * len(sizes))).astype(np.float32), "first")
        y = b.one("Conv", [x, weight, b.initializer(b.away_from_zero([channels]), "first_bias")])
        return port(kind, b.one("Relu", [y]) if b.choices.chance(40) else y)
    x = b.input([*sizes, into])
    weight = b.initializer(b.random.normal(0, 0.7, (into, channels)).astype(np.float32), "first")
    y = b.one("Add", [b.one("MatMul", [x, weight]), b.initializer(b.away_from_zero([channels]), "first_bias")])
    y = b.one("Tanh", [y]) if b.choices.chance(40) else y
    return port(kind, b.one("Transpose", [y], {"perm": [1, 0, 2]}) if kind == "sequence" else y)


def embedded_start(b: GraphBuilder, channels: int, count: int) -> Port:
    """An input of integers and a table they look up: tokens."""
    b.features.add("embedding of an input")
    ids = b.input([count], TensorProto.INT64)
    table = b.initializer(b.away_from_zero([VOCABULARY, channels]), "first")
    y = b.one("Gather", [table, ids])
    return port("tokens", b.one("Add", [y, b.bias([count, channels], "position")]))


def smaller(b: GraphBuilder, x: Port) -> Port:
    """Pool and project what has grown."""
    if x.channels > MOST_CHANNELS or x.channels < 2:
        x = project(b, x, b.choices.pick((4, 6, 8)))
    while np.prod(x.shape[1:]) > MOST_NUMBERS and x.kind == "image" and max(x.sizes) > 1:
        window = [2 if size > 1 else 1 for size in x.sizes]
        x = port(x.kind, b.one("MaxPool", [x], {"kernel_shape": window, "strides": window}))
    if np.prod(x.shape[1:]) > MOST_NUMBERS and x.kind in ("tokens", "last"):
        x = port("flat", reduced(b, "ReduceMean", x, list(range(1, x.rank - 1)), keep=False))
    return x


def end(b: GraphBuilder, x: Port) -> Value:
    """A layer of two results, on every position or on their mean, batch first."""
    if x.kind == "sequence":
        x = port("tokens", b.one("Transpose", [x], {"perm": [1, 0, 2]}))
    if b.opset >= 13 and x.kind != "flat" and b.choices.chance(30):
        axes = [axis for axis in range(1, x.rank) if axis != x.axis]
        x = port("flat", reduced(b, "ReduceMean", x, axes, keep=False))
    layer = weighted.pointwise if x.kind == "image" else weighted.matmul
    return layer(b, x, 2)


def single(block: Block, seed: int) -> onnx.ModelProto:
    """A network of one block between an input with a layer and a last layer: twelve channels, or eight, in front.

    The units of that layer are free: the block lets them pass, or another layer stands between.
    """
    choices = SeededChoices(seed)
    lowest, highest = block.opsets
    b = GraphBuilder(choices, opset=choices.integer(lowest, highest), symbolic_batch=not block.fixed and seed % 3 != 0)
    kinds = block.sources
    for attempt in range(60):
        kind = kinds[(seed + attempt) % len(kinds)]
        volumes = _VOLUMES[kind]
        sizes = volumes[(seed + attempt // len(kinds)) % len(volumes)]
        channels = 12 if attempt % 2 == 0 else 8
        if block.fits(port(kind, _shape_of(b, kind, channels, sizes))):
            x = start(b, kind, channels, sizes)
            if not block.passes:  # what it locks is the second layer
                x = project(b, x, channels)
            return b.finish([end(b, block.apply(b, x))])
    raise AssertionError(f"no port fits the block {block.name!r}")


def _shape_of(b: GraphBuilder, kind: Kind, channels: int, sizes: tuple[int, ...]) -> Value:
    if kind == "image":
        return Value("", (b.batch, channels, *sizes))
    return Value("", (*sizes, b.batch, channels) if kind == "sequence" else (b.batch, *sizes, channels))


def step(b: GraphBuilder, x: Port) -> Port:
    """One block; its result joined with what went in where the shapes allow, now and then."""
    fitting = [block for block in all_blocks() if block.takes(b, x)]
    y = b.choices.pick(fitting).apply(b, x)
    same = y.kind == x.kind and y.rank == x.rank
    if same and y.shape == x.shape and b.choices.chance(25):
        b.features.add("residual around a block")
        return port(y.kind, b.one(b.choices.pick(("Add", "Mul", "Max")), [y, x]))
    others = [axis for axis in range(x.rank) if axis != x.axis]
    if same and all(x.shape[axis] == y.shape[axis] for axis in others) and b.choices.chance(15):
        b.features.add("join around a block")
        return port(y.kind, b.one("Concat", [x, y], {"axis": x.axis}))
    return y


def build(choices: Choices) -> onnx.ModelProto:
    """A network of three to ten blocks."""
    b = GraphBuilder(choices, opset=choices.pick(OPSETS), symbolic_batch=choices.chance(60))
    kind: Kind = choices.pick(("image", "tokens", "flat", "last", "sequence"))
    channels = choices.pick((4, 6, 8, 12, 3, 5))
    if kind == "tokens" and choices.chance(30):
        x = embedded_start(b, channels, choices.integer(3, 5))
    else:
        x = start(b, kind, channels, choices.pick(_VOLUMES[kind]))
    outputs: list[Value] = []
    for _ in range(choices.integer(3, 10)):
        x = step(b, smaller(b, x))
        if choices.chance(6):
            b.features.add("second output")
            outputs.append(end(b, x))
    return b.finish([end(b, smaller(b, x)), *outputs])


def mixed_graph(seed: int) -> onnx.ModelProto:
    """A network of random blocks; the same one for the same seed."""
    return build(SeededChoices(seed))


@st.composite
def mixed_graphs(draw: Callable[[st.SearchStrategy[int]], int]) -> onnx.ModelProto:
    """Networks of random blocks that hypothesis can shrink."""
    return build(DrawnChoices(draw))
