"""Blocks that work position by position: activations, arithmetic of two operands, comparisons, choices, types."""

from collections.abc import Mapping

import numpy as np

from tests.graphs import weighted
from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import ANY_OPSET, Port, block, per_channel, project, to_float

#: Operator, lowest opset, attributes, and what keeps its argument where it is defined and tame.
_UNARY: tuple[tuple[str, int, Mapping[str, Attribute], str], ...] = (
    *((name, 13, {}, "") for name in ("Abs", "Atan", "Cos", "Erf", "Identity", "Neg", "Relu", "Sigmoid", "Sin")),
    *((name, 13, {}, "") for name in ("Softplus", "Softsign", "Tanh", "Selu", "Asinh", "Dropout")),
    *((name, 13, {}, "bounded") for name in ("Acos", "Asin", "Atanh", "Cosh", "Exp", "Sinh", "Tan")),
    *((name, 13, {}, "above one") for name in ("Acosh", "Log", "Reciprocal", "Sqrt")),
    ("Celu", 13, {"alpha": 0.6}, ""),
    ("Elu", 13, {"alpha": 0.7}, ""),
    ("HardSigmoid", 13, {"alpha": 0.3, "beta": 0.4}, ""),
    ("HardSwish", 14, {}, ""),
    ("LeakyRelu", 13, {"alpha": 0.2}, ""),
    ("Mish", 18, {}, ""),
    ("Gelu", 20, {"approximate": "tanh"}, ""),
    ("Shrink", 13, {"lambd": 0.3, "bias": 0.3}, ""),
    ("Swish", 24, {}, ""),
    ("ThresholdedRelu", 13, {"alpha": 0.4}, ""),
)
_ROUNDING = ("Ceil", "Floor", "Round", "Sign")
_JUMPING = ("ThresholdedRelu",)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow", "Mod")
_COMPARING = (("Equal", 13), ("Greater", 13), ("GreaterOrEqual", 13), ("Less", 13), ("LessOrEqual", 13))


def tame(b: GraphBuilder, x: Value, how: str) -> Value:
    """Bring a tensor into the domain of an operator."""
    if how == "bounded":
        return b.one("Mul", [b.one("Tanh", [x]), b.scalar(0.8)])
    if how == "above one":
        return b.one("Add", [b.one("Abs", [x]), b.scalar(1.1)])
    return x


def _register_unary(name: str, lowest: int, attributes: Mapping[str, Attribute], how: str) -> None:
    opsets = (lowest, ANY_OPSET[1])

    @block(name, name, opsets=opsets, steps=name in _JUMPING)
    def unary(b: GraphBuilder, x: Port) -> Value:
        return b.one(name, [tame(b, x, how)], attributes)


def _register_rounding(name: str) -> None:
    @block(name, name, steps=True)
    def rounding(b: GraphBuilder, x: Port) -> Value:
        stepped = b.one(name, [b.one("Mul", [x, b.scalar(1.7)])])
        return b.one("Add", [x, stepped])


def other_operand(b: GraphBuilder, x: Port) -> Value:
    """A second operand: another layer's result, or a constant that broadcasts against x in one of many ways."""
    kind = b.choices.pick(("channel", "scalar", "one", "layer", "unit axes", "same"))
    if kind == "layer":
        return project(b, x, x.channels)
    if kind == "same":
        return b.one("Relu", [x])
    if kind == "scalar":
        return b.bias([], "constant")
    if kind == "one":
        return b.bias([1], "constant")
    if kind == "unit axes":
        return b.bias([1] * x.axis + x.channel_shape, "constant")
    return per_channel(b, x)


def _register_arithmetic(name: str) -> None:
    @block(name, name)
    def arithmetic(b: GraphBuilder, x: Port) -> Value:
        other = other_operand(b, x)
        if name in ("Pow", "Div", "Mod"):
            other = tame(b, other, "above one" if name == "Div" else "bounded")
        left: Value = tame(b, x, "above one") if name == "Pow" else x
        if name == "Mod":
            return b.one("Mod", [left, b.one("Add", [b.one("Abs", [other]), b.scalar(9.0)])], {"fmod": 1})
        operands = [left, other]
        if name in ("Max", "Min", "Sum", "Mean") and b.choices.chance(50):
            operands.append(other_operand(b, x))
        # onnx's evaluator of Mean takes its first operand for the largest.
        if name not in ("Div", "Mean") and b.choices.chance(40):
            operands = operands[::-1] if name != "Pow" else operands
        return b.one(name, operands)


def _register_comparing(name: str, lowest: int) -> None:
    @block(name, name, opsets=(lowest, ANY_OPSET[1]), steps=True)
    def comparing(b: GraphBuilder, x: Port) -> Value:
        truth = b.one(name, [x, other_operand(b, x)])
        return b.one("Add", [x, to_float(b, truth)])


def _register_logic(name: str) -> None:
    @block(name, name, "Greater", "Less", steps=True)
    def logic(b: GraphBuilder, x: Port) -> Value:
        first, second = b.one("Greater", [x, b.scalar(0.1)]), b.one("Less", [x, per_channel(b, x)])
        return b.one("Mul", [x, to_float(b, b.one(name, [first, second]))])


for _entry in _UNARY:
    _register_unary(*_entry)
for _name in _ROUNDING:
    _register_rounding(_name)
for _name in _ARITHMETIC:
    _register_arithmetic(_name)
for _name, _lowest in _COMPARING:
    _register_comparing(_name, _lowest)
for _name in ("And", "Or", "Xor"):
    _register_logic(_name)


@block("Not", "Not", "Greater", steps=True)
def negation(b: GraphBuilder, x: Port) -> Value:
    return b.one("Mul", [x, to_float(b, b.one("Not", [b.one("Greater", [x, b.scalar(0.2)])]))])


@block("IsNaN", "IsNaN", "Where")
def not_a_number(b: GraphBuilder, x: Port) -> Value:
    return b.one("Where", [b.one("IsNaN", [x]), per_channel(b, x), x])


@block("IsInf", "IsInf", "Where", opsets=(13, 19))
def infinite(b: GraphBuilder, x: Port) -> Value:
    return b.one("Where", [b.one("IsInf", [x]), b.scalar(0.5), x])


@block("Clip", "Clip")
def clip(b: GraphBuilder, x: Port) -> Value:
    low, high = b.choices.pick(((0.0, 6.0), (-0.6, None), (None, 0.9), (0.1, 1.5)))
    limits = [None if limit is None else b.scalar(limit) for limit in (low, high)]
    return b.one("Clip", [x, *limits] if high is not None else [x, limits[0]])


@block("PRelu", "PRelu")
def parametric_relu(b: GraphBuilder, x: Port) -> Value:
    shape = x.channel_shape if b.choices.chance(70) else [1]
    return b.one("PRelu", [x, b.parameter(b.random.uniform(0.1, 0.5, tuple(shape)).astype(np.float32), "slope")])


@block("choice of two layers", "Where", "Greater", steps=True)
def choice(b: GraphBuilder, x: Port) -> Value:
    condition = b.one("Greater", [x, per_channel(b, x, "limit")])
    return b.one("Where", [condition, project(b, x, x.channels), b.choices.pick((x, per_channel(b, x)))])


@block("choice by a constant mask", "Where")
def constant_choice(b: GraphBuilder, x: Port) -> Value:
    mask = b.initializer(b.random.integers(0, 2, tuple(x.channel_shape)).astype(np.bool_), "mask")
    operands = [x, b.choices.pick((b.scalar(0.3), per_channel(b, x)))]
    return b.one("Where", [mask, *(operands if b.choices.chance(50) else operands[::-1])])


@block("Cast", "Cast")
def cast(b: GraphBuilder, x: Port) -> Value:
    return to_float(b, b.one("Abs", [b.one("Cast", [x], {"to": 11})]))


@block("Cast to integers", "Cast", steps=True)
def cast_to_integers(b: GraphBuilder, x: Port) -> Value:
    return b.one("Add", [x, to_float(b, b.one("Cast", [x], {"to": b.choices.pick((6, 7))}))])


@block("CastLike", "CastLike", opsets=(15, 24))
def cast_like(b: GraphBuilder, x: Port) -> Value:
    like = b.choices.pick((x, b.scalar(1.0), per_channel(b, x)))
    return b.one("CastLike", [b.one("Cast", [x], {"to": 11}), like])


@block("dropout with its mask", "Dropout", opsets=(13, 21))
def dropout_mask(b: GraphBuilder, x: Port) -> Value:
    kept, mask = b.node("Dropout", [x], outputs=2)
    return b.one("Mul", [kept, to_float(b, mask)])


@block("half precision", "Cast", opsets=(13, 21))
def half_precision(b: GraphBuilder, x: Port) -> Value:
    """A layer in float16: its weights, its bias, and an activation.

    No Relu: onnxruntime 1.19.2 writes beyond the memory of one of 16 bits where a free axis stands behind another.
    """
    wide = x.channels
    half = b.one("Cast", [x], {"to": 10})
    trailing = [1] * (x.rank - 1 - x.axis)
    outwards = b.choices.integer(2, 8)
    shape = [outwards, wide, *trailing] if x.kind == "image" else [wide, outwards]
    weight = b.initializer(b.random.normal(0, 1 / np.sqrt(wide), tuple(shape)).astype(np.float16), "half_weight")
    shift = b.initializer(b.away_from_zero([outwards, *trailing]).astype(np.float16), "half_bias")
    y = b.one("Conv" if x.kind == "image" else "MatMul", [half, weight])
    return to_float(b, b.one("Sigmoid", [b.one("Add", [y, shift])]))


@block("guarded division by a norm", "Div", "Sqrt", "Mul")
def normed(b: GraphBuilder, x: Port) -> Value:
    squares = b.one("Mul", [x, x])
    return b.one("Div", [x, b.one("Sqrt", [b.one("Add", [squares, per_channel_positive(b, x)])])])


def per_channel_positive(b: GraphBuilder, x: Port) -> Value:
    return b.positive(x.channel_shape, "positive")


@block("shared layer", "Add")
def shared_layer(b: GraphBuilder, x: Port) -> Value:
    """One weight in two places: x w relu w."""
    c = x.channels
    if x.kind == "image":
        weight = b.initializer(b.random.normal(0, 0.6, (c, c, *[1] * (x.rank - 2))).astype(np.float32), "tied")
        once = b.one("Relu", [b.one("Conv", [x, weight])])
        return b.one("Add", [b.one("Conv", [once, weight]), per_channel(b, x)])
    weight = b.initializer(b.random.normal(0, 0.6, (c, c)).astype(np.float32), "tied")
    once = b.one("Relu", [b.one("MatMul", [x, weight])])
    return b.one("Add", [b.one("MatMul", [once, weight]), per_channel(b, x)])


@block("tied layer and its transpose", "Transpose", "MatMul", on=("last", "tokens", "flat", "sequence"))
def transposed_twin(b: GraphBuilder, x: Port) -> Value:
    """An auto-encoder with tied weights: x w, activated, then w transposed."""
    hidden = b.choices.integer(2, 6)
    weight = b.initializer(b.random.normal(0, 0.6, (x.channels, hidden)).astype(np.float32), "tied")
    inner = b.one("Tanh", [b.one("Add", [b.one("MatMul", [x, weight]), b.bias([hidden])])])
    return b.one("MatMul", [inner, b.one("Transpose", [weight], {"perm": [1, 0]})])


@block("two layers and a residual", "Add")
def residual(b: GraphBuilder, x: Port) -> Value:
    inner = project(b, x, b.choices.integer(2, 8))
    y = b.one("Relu", [inner])
    layer = weighted.pointwise if x.kind == "image" else weighted.matmul
    return b.one("Add", [x, layer(b, y, x.channels)])
