"""Blocks on features, tokens and sequences: products, Einsum, normalisations over features, other kinds of port."""

import math

from tests.graphs import weighted
from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import (
    Kind,
    Port,
    block,
    divisible,
    number,
    per_channel,
    port,
    project,
    reduced,
)

_FEATURES: tuple[Kind, ...] = ("last", "tokens", "flat", "sequence")


@block("MatMul", "MatMul", on=_FEATURES)
def product(b: GraphBuilder, x: Port) -> Value:
    return weighted.matmul(b, x, b.choices.integer(2, 8))


@block("Gemm", "Gemm", on=("flat",))
def general_product(b: GraphBuilder, x: Port) -> Value:
    return weighted.gemm(b, x, b.choices.integer(2, 8))


@block("MatMul on the left", "MatMul", on=("tokens",))
def left_product(b: GraphBuilder, x: Port) -> Value:
    return weighted.left_matmul(b, x)


@block("token mixer", "MatMul", "Transpose", on=("tokens",))
def token_mixer(b: GraphBuilder, x: Port) -> Value:
    """MLP-Mixer: a hidden layer along the tokens."""
    y = b.one("Transpose", [x], {"perm": [0, 2, 1]})
    y = b.one("Relu", [weighted.matmul(b, y, b.choices.integer(2, 5))])
    y = b.one("Transpose", [weighted.matmul(b, y, x.shape[1])], {"perm": [0, 2, 1]})
    return b.one("Add", [x, y])


@block("Einsum", "Einsum", on=_FEATURES)
def einsum(b: GraphBuilder, x: Port) -> Value:
    letters = "..." if b.choices.chance(30) else "abgh"[: x.rank - 1]
    wide = b.choices.integer(2, 6)
    flipped = b.choices.chance(50)
    weight = b.weight([wide, x.channels] if flipped else [x.channels, wide], x.channels)
    y = b.one("Einsum", [x, weight], {"equation": f"{letters}i,{'oi' if flipped else 'io'}->{letters}o"})
    return b.one("Add", [y, b.bias([wide])])


@block("Einsum with a constant of three axes", "Einsum", on=("tokens",))
def einsum_heads(b: GraphBuilder, x: Port) -> Value:
    """x [b, t, i] to heads [b, t, h, d], and back by another constant."""
    heads, size = b.choices.integer(2, 3), b.choices.integer(2, 4)
    y = b.one("Einsum", [x, b.weight([x.channels, heads, size], x.channels)], {"equation": "bti,ihd->bthd"})
    y = b.one("Relu", [y])
    return b.one("Einsum", [y, b.weight([heads, size, 4], heads * size)], {"equation": "bthd,hdo->bto"})


@block("Einsum of activations", "Einsum", on=("tokens",), passes=False)
def einsum_activations(b: GraphBuilder, x: Port) -> Value:
    other = project(b, x, x.channels)
    scores = b.one("Softmax", [b.one("Einsum", [x, other], {"equation": "btd,bsd->bts"})], {"axis": -1})
    return b.one("Einsum", [scores, x], {"equation": "bts,bsd->btd"})


@block("Einsum that sums", "Einsum", on=("tokens",), passes=False)
def einsum_sum(b: GraphBuilder, x: Port) -> Value:
    means = b.one("Einsum", [x], {"equation": "btd->bt"})
    return b.one("Mul", [x, b.one("Unsqueeze", [b.one("Sigmoid", [means]), b.integers(2)])])


@block("product of two activations", "MatMul", "Transpose", on=("tokens",), passes=False)
def gram(b: GraphBuilder, x: Port) -> Value:
    """x x' x: what is contracted stays unless both sides are seen to."""
    scores = b.one("MatMul", [x, b.one("Transpose", [project(b, x, x.channels)], {"perm": [0, 2, 1]})])
    return b.one("MatMul", [b.one("Softmax", [scores], {"axis": -1}), x])


@block("gated linear unit", "Split", "Sigmoid", "Mul", on=("tokens", "flat", "sequence"))
def gated(b: GraphBuilder, x: Port) -> Value:
    half = b.choices.integer(2, 5)
    wide = project(b, x, 2 * half)
    first, second = b.node("Split", [wide, b.integers(half, half)], {"axis": -1}, outputs=2)
    return b.one("Mul", [first, b.one("Sigmoid", [second])])


@block("perceptron", "Erf", "MatMul", on=("tokens", "sequence", "last"))
def perceptron(b: GraphBuilder, x: Port) -> Value:
    """A transformer's MLP with GELU written out."""
    y = weighted.matmul(b, x, b.choices.integer(4, 9))
    erf = b.one("Erf", [b.one("Div", [y, b.scalar(math.sqrt(2))])])
    y = b.one("Mul", [b.one("Mul", [y, b.one("Add", [erf, b.scalar(1.0)])]), b.scalar(0.5)])
    return b.one("Add", [x, weighted.matmul(b, y, x.channels)])


@block("LayerNormalization", "LayerNormalization", "MatMul", on=_FEATURES, opsets=(17, 24))
def layer_normalization(b: GraphBuilder, x: Port) -> Value:
    """Pre-norm: x + f(norm x); inside of f units are free."""
    attributes: dict[str, Attribute] = {"axis": -1} if b.choices.chance(50) else {}
    operands = [x, b.positive([x.channels], "scale")]
    y = b.one("LayerNormalization", [*operands, b.bias([x.channels])] if b.choices.chance(70) else operands, attributes)
    y = b.one("Tanh", [weighted.matmul(b, y, b.choices.integer(3, 6))])
    return b.one("Add", [x, weighted.matmul(b, y, x.channels)])


@block("LayerNormalization of space", "LayerNormalization", on=("image",), opsets=(17, 24))
def space_normalization(b: GraphBuilder, x: Port) -> Value:
    axis = b.choices.pick((-1, 2))
    return b.one("LayerNormalization", [x, b.positive(x.shape[axis:], "scale")], {"axis": axis})


def _register_root_mean_square(name: str, opsets: tuple[int, int]) -> None:
    @block(name, name, on=_FEATURES, opsets=opsets)
    def root_mean_square(b: GraphBuilder, x: Port) -> Value:
        """Pre-norm twice over, the scale shared by both, one of each or computed."""
        scales = [b.positive([x.channels], "scale")] * 2
        if b.choices.chance(50):
            scales[1] = b.positive([x.channels], "scale")
        elif b.choices.chance(30):
            means = reduced(b, "ReduceMean", x, [axis for axis in range(x.rank) if axis != x.axis], keep=False)
            scales[1] = b.one("Exp", [b.one("Tanh", [means])])
        for scale in scales:
            attributes = b.choices.pick(({}, {"axis": -1, "epsilon": 0.1}, {"axis": x.rank - 1, "epsilon": 0.01}))
            (y,) = b.stated(name, [x, scale], [(x.shape, x.dtype)], attributes=attributes)
            y = weighted.matmul(b, b.one("Relu", [weighted.matmul(b, y, 5)]), x.channels)
            x = port(x.kind, b.one("Add", [x, y]))
        return x


_register_root_mean_square("RMSNormalization", (23, 24))
_register_root_mean_square("SimplifiedLayerNormalization", (13, 21))


@block("RMSNormalization over several axes", "RMSNormalization", on=("image",), opsets=(23, 24))
def wide_root_mean_square(b: GraphBuilder, x: Port) -> Value:
    scale = b.positive([x.channels, *([1] * len(x.sizes))], "scale")
    return b.one("RMSNormalization", [x, scale], {"axis": 1, "epsilon": 0.1})


@block("root mean square written out", "ReduceMean", "Sqrt", "Mul", on=_FEATURES)
def written_root_mean_square(b: GraphBuilder, x: Port) -> Value:
    """As exporters write it: a square by Pow or Mul, the root divided by or its reciprocal multiplied in."""
    squares = b.one("Pow", [x, b.scalar(2.0)]) if b.choices.chance(50) else b.one("Mul", [x, x])
    root = b.one("Sqrt", [b.one("Add", [reduced(b, "ReduceMean", squares, [-1], keep=True), b.scalar(0.01)])])
    form = b.choices.pick(("Div", "Reciprocal", "one by it"))
    if form == "Div":
        y = b.one("Div", [x, root])
    elif form == "Reciprocal":
        y = b.one("Mul", [x, b.one("Reciprocal", [root])])
    else:
        y = b.one("Mul", [x, b.one("Div", [b.scalar(1.0), root])])
    y = b.one("Mul", [b.positive([x.channels], "scale"), y])
    return b.one("Add", [x, weighted.matmul(b, b.one("Relu", [weighted.matmul(b, y, 5)]), x.channels)])


@block("RMSNormalization of space", "RMSNormalization", on=("image",), opsets=(23, 24))
def space_root_mean_square(b: GraphBuilder, x: Port) -> Value:
    return b.one("RMSNormalization", [x, b.positive([x.shape[-1]], "scale")])


@block("layer normalisation written out", "ReduceMean", "Sub", "Sqrt", "Div", on=_FEATURES, passes=False)
def written_out(b: GraphBuilder, x: Port) -> Value:
    centred = b.one("Sub", [x, reduced(b, "ReduceMean", x, [-1], keep=True)])
    squares = b.one("Pow", [centred, b.scalar(2.0)])
    variance = b.one("Add", [reduced(b, "ReduceMean", squares, [-1], keep=True), b.scalar(0.01)])
    y = b.one("Mul", [b.one("Div", [centred, b.one("Sqrt", [variance])]), b.positive([x.channels], "scale")])
    y = b.one("Add", [y, per_channel(b, x)])
    return b.one("Add", [x, weighted.matmul(b, b.one("Relu", [weighted.matmul(b, y, 5)]), x.channels)])


@block("LpNormalization of features", "LpNormalization", on=_FEATURES, passes=False)
def norm_of_features(b: GraphBuilder, x: Port) -> Value:
    return b.one("LpNormalization", [x], {"axis": -1, "p": b.choices.pick((1, 2))})


@block("LpNormalization across", "LpNormalization", on=("tokens", "image"))
def norm_across(b: GraphBuilder, x: Port) -> Value:
    return b.one("LpNormalization", [x], {"axis": 1 if x.kind == "tokens" else x.rank - 1, "p": 2})


# From one kind of port to another


@block("image to tokens", "Reshape", "Transpose", on=("image",), to="tokens")
def image_to_tokens(b: GraphBuilder, x: Port) -> Value:
    y = b.one("Reshape", [x, b.integers(*b.choices.pick(((0, 0, -1), (0, x.channels, -1))))])
    return b.one("Transpose", [y], {"perm": [0, 2, 1]})


@block("tokens to image", "Transpose", "Reshape", on=("tokens",), to="image")
def tokens_to_image(b: GraphBuilder, x: Port) -> Value:
    count = x.shape[1]
    height = next(size for size in (3, 2, 1) if count % size == 0)
    y = b.one("Transpose", [x], {"perm": [0, 2, 1]})
    return b.one("Reshape", [y, b.integers(0, b.choices.pick((-1, x.channels)), height, count // height)])


@block("channels last", "Transpose", on=("image",), to="last", fits=lambda x: x.rank == 4)
def channels_last(b: GraphBuilder, x: Port) -> Value:
    return b.one("Transpose", [x], {"perm": [0, 2, 3, 1]})


@block("channels first", "Transpose", on=("last",), to="image")
def channels_first(b: GraphBuilder, x: Port) -> Value:
    return b.one("Transpose", [x], {"perm": [0, 3, 1, 2]})


@block("windows of channels last", "Reshape", "Transpose", on=("last",), to="tokens")
def windows(b: GraphBuilder, x: Port) -> Value:
    """Swin: [N, H, W, C] -> [N, H*W, C] by a reshape that merges space."""
    return b.one("Reshape", [b.one("Transpose", [x], {"perm": [0, 2, 1, 3]}), b.integers(0, -1, x.channels)])


@block("patch merging", "Slice", "Concat", on=("last",), fits=lambda x: not any(size % 2 for size in x.sizes))
def patch_merging(b: GraphBuilder, x: Port) -> Value:
    """Swin's downsampling: four neighbours, side by side along the channels, then a layer."""
    corners = []
    for row in (0, 1):
        for column in (0, 1):
            ends, steps = b.integers(x.shape[1], x.shape[2]), b.integers(2, 2)
            corners.append(b.one("Slice", [x, b.integers(row, column), ends, b.integers(1, 2), steps]))
    return weighted.matmul(b, b.one("Concat", corners, {"axis": -1}), b.choices.integer(2, 6))


@block("tokens to sequence", "Transpose", on=("tokens",), to="sequence")
def tokens_to_sequence(b: GraphBuilder, x: Port) -> Value:
    return b.one("Transpose", [x], {"perm": [1, 0, 2]})


@block("sequence to tokens", "Transpose", on=("sequence",), to="tokens")
def sequence_to_tokens(b: GraphBuilder, x: Port) -> Value:
    return b.one("Transpose", [x], {"perm": [1, 0, 2]})


@block("tokens to features by mean", "ReduceMean", on=("tokens",), to="flat")
def mean_token(b: GraphBuilder, x: Port) -> Value:
    return reduced(b, "ReduceMean", x, [1], keep=False)


@block("tokens to features by the first", "Gather", on=("tokens",), to="flat")
def first_token(b: GraphBuilder, x: Port) -> Value:
    return b.one("Gather", [x, number(b, b.choices.pick((0, -1)))], {"axis": 1})


@block("Flatten", "Flatten", on=("tokens", "image", "last"), to="flat", fits=lambda x: math.prod(x.shape[1:]) <= 160)
def flatten(b: GraphBuilder, x: Port) -> Value:
    return b.one("Flatten", [x], {"axis": 1} if b.choices.chance(50) else {})


@block("flatten by Reshape", "Reshape", on=("tokens", "image"), to="flat", fits=lambda x: math.prod(x.shape[1:]) <= 160)
def flatten_by_reshape(b: GraphBuilder, x: Port) -> Value:
    return b.one("Reshape", [x, b.integers(*b.choices.pick(((0, -1), (-1, math.prod(x.shape[1:])))))])


@block("image to features by mean", "ReduceMean", on=("image",), to="flat")
def mean_position(b: GraphBuilder, x: Port) -> Value:
    return reduced(b, "ReduceMean", x, list(range(2, x.rank)), keep=False)


@block("features to tokens", "Reshape", on=("flat",), to="tokens", fits=divisible(2))
def features_to_tokens(b: GraphBuilder, x: Port) -> Value:
    return b.one("Reshape", [x, b.integers(*b.choices.pick(((0, 2, -1), (-1, 2, x.channels // 2))))])


@block("features to image", "Reshape", on=("flat",), to="image", fits=divisible(4))
def features_to_image(b: GraphBuilder, x: Port) -> Value:
    return b.one("Reshape", [x, b.integers(*b.choices.pick(((0, -1, 2, 2), (-1, x.channels // 4, 2, 2))))])


@block("features repeated as tokens", "Unsqueeze", "Expand", on=("flat",), to="tokens", fixed=True)
def repeated(b: GraphBuilder, x: Port) -> Value:
    y = b.one("Unsqueeze", [x, b.integers(1)])
    y = b.one("Expand", [y, b.integers(*b.choices.pick(((1, 3, 1), (3, x.channels), (x.shape[0], 3, x.channels))))])
    return b.one("Add", [y, b.bias([3, 1], "position")])


@block("class token", "Expand", "Concat", on=("tokens",), fixed=True)
def class_token(b: GraphBuilder, x: Port) -> Value:
    token = b.initializer(b.away_from_zero([1, 1, x.channels]), "token")
    y = b.one("Concat", [b.one("Expand", [token, b.integers(x.shape[0], 1, 1)]), x], {"axis": 1})
    return b.one("Add", [y, b.initializer(b.away_from_zero([1, y.shape[1], x.channels]), "position")])
