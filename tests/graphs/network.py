"""Whole networks: a body on images, signals, volumes or features, a way down to features, and a head."""

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from tests.graphs import blocks, elementwise, movement, weighted
from tests.graphs.builder import GraphBuilder, Value
from tests.graphs.choices import Choices, DrawnChoices, SeededChoices

Step = Callable[[GraphBuilder, Value], Value]
OPSETS = (17, 18, 20, 13, 14, 15, 16, 19, 21)
#: More positions than this are pooled away before the features are flattened.
MOST_FEATURES = 128

SPATIAL: tuple[tuple[int, Step], ...] = (
    (20, weighted.conv),
    (22, elementwise.elementwise),
    (6, weighted.depthwise),
    (5, weighted.grouped_conv),
    (1, weighted.conv_transpose),
    (9, movement.pool),
    (3, movement.pad_spatial),
    (2, movement.slice_channels),
    (2, movement.slice_spatial),
    (2, movement.there_and_back),
    (2, movement.squeeze_and_back),
    (2, movement.merge_spatial_and_back),
    (3, movement.shuffle),
    (7, blocks.residual),
    (4, blocks.inverted_bottleneck),
    (4, blocks.padded_shortcut),
    (6, blocks.branches),
    (2, blocks.spatial_concat),
    (4, blocks.squeeze_and_excite),
    (2, blocks.spatial_gate),
    (3, blocks.gated_halves),
    (3, blocks.split_and_join),
)
TOKENS: tuple[tuple[int, Step], ...] = (
    (6, elementwise.elementwise),
    (5, blocks.token_mixer),
    (4, weighted.left_matmul),
    (2, movement.squeeze_and_back),
)
FLAT: tuple[tuple[int, Step], ...] = (
    (8, elementwise.elementwise),
    (4, blocks.flat_residual),
    (4, blocks.flat_concat),
    (2, blocks.gated_features),
    (2, movement.slice_channels),
    (2, movement.squeeze_and_back),
)


def walk(b: GraphBuilder, x: Value, steps: tuple[tuple[int, Step], ...], count: int) -> Value:
    for _ in range(count):
        x = b.choices.weighted(steps)(b, x)
    return x


def start(b: GraphBuilder) -> Value:
    """The graph's input, channels first or last, and a second input now and then."""
    rank = b.choices.weighted(((62, 2), (16, 1), (8, 3)))
    channels = b.choices.integer(1, 4)
    spatial = [b.choices.integer(4, 8 if rank < 3 else 5) for _ in range(rank)]
    if b.choices.chance(12):
        b.features.add("channels-last input")
        x = b.input([*spatial, channels])
        x = b.one("Transpose", [x], {"perm": [0, rank + 1, *range(1, rank + 1)]})
    else:
        x = b.input([channels, *spatial])
    if b.choices.chance(10):
        b.features.add("two inputs")
        x = b.one("Concat", [x, b.input([2, *spatial])], {"axis": 1})
    return x


def down(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> [N, features]."""
    if b.choices.chance(30):
        return movement.flatten(b, movement.global_pool(b, x))
    if b.choices.chance(20):
        return movement.reduce_flat(b, x)
    while np.prod(x.shape[1:]) > MOST_FEATURES:
        window = [2 if extent > 1 else 1 for extent in x.shape[2:]]
        x = b.one("MaxPool", [x], {"kernel_shape": window, "strides": window})
    return movement.dynamic_flatten(b, x) if b.choices.chance(12) else movement.flatten(b, x)


def token_body(b: GraphBuilder, x: Value) -> Value:
    """[N, C, ...] -> tokens [N, positions, C] -> [N, features]."""
    x = walk(b, movement.tokens(b, x), TOKENS, b.choices.integer(1, 3))
    if b.choices.chance(50):
        return b.one("ReduceMean", [x, b.integers(1)] if b.opset >= 18 else [x], mean_over_tokens(b))
    return movement.flatten(b, weighted.matmul(b, x, b.choices.integer(2, 4)))


def mean_over_tokens(b: GraphBuilder) -> dict[str, int | list[int]]:
    return {"keepdims": 0} if b.opset >= 18 else {"axes": [1], "keepdims": 0}


def tail(b: GraphBuilder, x: Value) -> Value:
    """The last layer and what classifiers end in."""
    x = weighted.dense(b, x, b.choices.integer(2, 5))
    ending = b.choices.weighted(
        ((70, "logits"), (10, "Softmax"), (5, "LogSoftmax"), (5, "Identity"), (10, "activation"))
    )
    if ending in ("Softmax", "LogSoftmax"):
        return b.one(ending, [x], {"axis": -1})
    if ending == "Identity":
        return elementwise.identity(b, x)
    return elementwise.activation(b, x) if ending == "activation" else x


def build(choices: Choices) -> onnx.ModelProto:
    """A valid network of a handful of layers out of ``choices``."""
    b = GraphBuilder(choices, opset=choices.pick(OPSETS), symbolic_batch=choices.chance(70))
    outputs: list[Value] = []
    if choices.chance(15):
        b.features.add("features only")
        x = weighted.dense(b, b.input([choices.integer(3, 8)]), choices.integer(3, 8))
        x = elementwise.activation(b, x)
    else:
        x = weighted.conv(b, start(b))
        x = walk(b, x, SPATIAL, choices.integer(0, 5))
        if choices.chance(12):
            b.features.add("second output")
            outputs.append(weighted.pointwise(b, x, 2) if choices.chance(60) else x)
        if choices.chance(10):
            b.features.add("fully convolutional")
            return b.finish([weighted.conv(b, x, channels=2), *outputs])
        x = token_body(b, x) if choices.chance(15) else down(b, x)
    if choices.chance(12) and x.shape[1] > 1:
        x = weighted.conv(b, movement.fold(b, x))
        x = movement.flatten(b, elementwise.elementwise(b, x))
    if choices.chance(50):
        x = elementwise.activation(b, weighted.dense(b, x, choices.integer(3, 8)))
    x = walk(b, x, FLAT, choices.integer(0, 2))
    return b.finish([tail(b, x), *outputs])


def random_graph(seed: int) -> onnx.ModelProto:
    """A valid small network; the same one for the same seed."""
    return build(SeededChoices(seed))


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Valid small networks that hypothesis can shrink."""
    return build(DrawnChoices(draw))


#: Integers that are fed stay below this.
VOCABULARY = 7


def feeds(model: onnx.ModelProto, *, batch: int = 3, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Standard normal inputs, integers below ``VOCABULARY``; ``batch`` stands for every symbolic axis."""
    random = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, NDArray[np.generic]] = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        shape = [axis.dim_value if axis.HasField("dim_value") else batch for axis in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            found[value.name] = random.standard_normal(shape).astype(dtype)
        else:
            found[value.name] = random.integers(0, VOCABULARY, shape).astype(dtype)
    return found


def features(model: onnx.ModelProto) -> set[str]:
    """What the generator put into a graph: operators and combinations, in words."""
    stored = {entry.key: entry.value for entry in model.metadata_props}
    return set(stored["features"].split(","))
