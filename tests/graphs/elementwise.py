"""Steps that keep the shape: activations, arithmetic with constants, BatchNormalization, operators without a rule."""

from collections.abc import Mapping

import numpy as np

from tests.graphs.builder import Attribute, GraphBuilder, Value

#: Operator, lowest opset, attributes. All are continuous: a jump would turn rounding noise into a difference.
UNARY: tuple[tuple[str, int, Mapping[str, Attribute]], ...] = (
    ("Relu", 13, {}),
    ("Sigmoid", 13, {}),
    ("Tanh", 13, {}),
    ("LeakyRelu", 13, {"alpha": 0.2}),
    ("Elu", 13, {"alpha": 0.7}),
    ("Selu", 13, {}),
    ("Celu", 13, {}),
    ("Softplus", 13, {}),
    ("Softsign", 13, {}),
    ("HardSigmoid", 13, {"alpha": 0.3}),
    ("HardSwish", 14, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Erf", 13, {}),
    ("Abs", 13, {}),
    ("Neg", 13, {}),
    ("Sin", 13, {}),
    ("Cos", 13, {}),
    ("Atan", 13, {}),
)


def activation(b: GraphBuilder, x: Value) -> Value:
    operator, _, attributes = b.choices.pick([entry for entry in UNARY if entry[1] <= b.opset])
    return b.one(operator, [x], attributes)


def guarded(b: GraphBuilder, x: Value) -> Value:
    """Operators that need a bounded or positive argument: exp(-|x|), sqrt(|x| + c), log(|x| + c), 1 / (|x| + c)."""
    size = b.one("Abs", [x])
    operator = b.choices.pick(("Exp", "Sqrt", "Log", "Reciprocal"))
    if operator == "Exp":
        return b.one("Exp", [b.one("Neg", [size])])
    return b.one(operator, [b.one("Add", [size, b.scalar(0.7)])])


def swish(b: GraphBuilder, x: Value) -> Value:
    """x * sigmoid(x), as exporters write SiLU."""
    return b.one("Mul", [x, b.one("Sigmoid", [x])])


def clip(b: GraphBuilder, x: Value) -> Value:
    """Clip with both bounds, one bound, or ReLU6's; zero need not be inside."""
    low, high = b.choices.pick(((0.0, 6.0), (-0.6, None), (None, 0.9), (0.1, 1.5)))
    inputs = [x, None if low is None else b.scalar(low)]
    if high is not None:
        inputs.append(b.scalar(high))
    return b.one("Clip", inputs)


def prelu(b: GraphBuilder, x: Value) -> Value:
    """PRelu with a slope per channel, one slope, or a slope per last axis."""
    ones = [1] * (x.rank - 2)
    shape = b.choices.pick(([x.shape[1], *ones], [1, x.shape[1], *ones], [1], [x.shape[-1]]))
    slope = b.parameter(b.random.uniform(0.1, 0.5, tuple(shape)).astype(np.float32), "slope")
    return b.one("PRelu", [x, slope])


def batch_normalization(b: GraphBuilder, x: Value) -> Value:
    """Statistics far from zero and one, so that losing or shifting one shows."""
    count = [x.shape[1]]
    inputs = [
        x,
        b.positive(count, "gamma"),
        b.bias(count, "beta"),
        b.bias(count, "mean"),
        b.positive(count, "variance"),
    ]
    return b.one("BatchNormalization", inputs, {"epsilon": b.choices.pick((1e-5, 1e-3))})


def constant_arithmetic(b: GraphBuilder, x: Value) -> Value:
    """Add, Sub, Mul, Div, Max, Min, Pow with a constant that broadcasts, on either side where that is legal."""
    ones = [1] * (x.rank - 2)
    channels = x.shape[1]
    shapes: list[list[int]] = [[channels, *ones], [1, channels, *ones], [], [1], [1, 1, *ones], [1, 1, *x.shape[2:]]]
    shapes.append([*x.shape[1:]])
    if x.rank > 2:
        shapes.append([x.shape[-1]])
    shape = b.choices.pick(shapes)
    b.features.add(f"broadcast {'scalar' if len(shape) == 0 else 'constant'}")
    operator = b.choices.weighted(
        ((6, "Add"), (3, "Sub"), (4, "Mul"), (3, "Div"), (1, "Max"), (1, "Min"), (1, "Sum"), (1, "Mean"))
    )
    constant = b.bias(shape, "constant")
    if operator == "Div":
        return b.one("Div", [x, b.positive(shape, "divisor")])
    swapped = b.choices.chance(30)
    return b.one(operator, [constant, x] if swapped else [x, constant])


def square(b: GraphBuilder, x: Value) -> Value:
    return b.one("Pow", [b.one("Tanh", [x]), b.scalar(2.0)])


def dropout(b: GraphBuilder, x: Value) -> Value:
    return b.one("Dropout", [x, b.scalar(0.3)] if b.choices.chance(50) else [x])


def identity(b: GraphBuilder, x: Value) -> Value:
    return b.one("Identity", [x])


def cast(b: GraphBuilder, x: Value) -> Value:
    """To double and back, or to the type it already has."""
    if b.choices.chance(50):
        return b.one("Cast", [x], {"to": 1})
    return b.one("Cast", [b.one("Cast", [x], {"to": 11})], {"to": 1})


def where(b: GraphBuilder, x: Value) -> Value:
    """Where(x > 0, x, c x): a LeakyRelu spelled out."""
    positive = b.one("Greater", [x, b.scalar(0.0)])
    return b.one("Where", [positive, x, b.one("Mul", [x, b.scalar(0.1)])])


def mixing(b: GraphBuilder, x: Value) -> Value:
    """Operators that mix along the channel axis, which must keep it whole."""
    names = ["Softmax", "LogSoftmax", "LRN", "CumSum", "MeanVariance", "LpNormalization", "ReduceMean"]
    if b.opset >= 17:
        names.append("LayerNormalization")
    name = b.choices.pick(names)
    if name in ("Softmax", "LogSoftmax"):
        return b.one(name, [x], {"axis": 1})
    if name == "LRN" and x.rank == 4:
        return b.one("LRN", [x], {"size": 3, "alpha": 0.5, "bias": 1.0})
    if name == "CumSum":
        return b.one("CumSum", [x, b.initializer(np.asarray(1, np.int64), "axis")])
    if name == "LpNormalization":
        return b.one("LpNormalization", [x], {"axis": 1, "p": 2})
    if name == "ReduceMean":
        mean = b.one("ReduceMean", [x, b.integers(1)]) if b.opset >= 18 else b.one("ReduceMean", [x], {"axes": [1]})
        return b.one("Sub", [x, mean])
    if name == "LayerNormalization":
        tail = [*x.shape[1:]]
        return b.one("LayerNormalization", [x, b.positive(tail, "scale"), b.bias(tail)], {"axis": 1})
    return b.one("Mul", [x, b.one("Softmax", [x], {"axis": 1})])


def instance_normalization(b: GraphBuilder, x: Value) -> Value:
    if x.rank < 3 or int(np.prod(x.shape[2:])) < 2:
        return identity(b, x)
    return b.one("InstanceNormalization", [x, b.positive([x.shape[1]], "scale"), b.bias([x.shape[1]])])


def foreign(b: GraphBuilder, x: Value) -> Value:
    """An operator outside the standard, sometimes without a declared shape."""
    operator = b.choices.pick(("Gelu", "QuickGelu"))
    return b.foreign("com.microsoft", operator, [x], x.shape, declared=b.choices.chance(50))


#: How often each step is taken, for a tensor of any rank from 2 up.
ELEMENTWISE = (
    (24, activation),
    (8, batch_normalization),
    (8, constant_arithmetic),
    (3, clip),
    (3, prelu),
    (3, guarded),
    (2, swish),
    (2, square),
    (2, dropout),
    (2, identity),
    (2, cast),
    (1, where),
    (1, mixing),
    (1, instance_normalization),
    (1, foreign),
)


def elementwise(b: GraphBuilder, x: Value) -> Value:
    return b.choices.weighted(ELEMENTWISE)(b, x)
