"""Blocks with quantised weights and activations. Every one rounds: a result may fall a step apart."""

import numpy as np
from onnx import TensorProto

from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import MICROSOFT, RUNTIME_OPSET, Kind, Port, block, port, project, to_float

Integer = type[np.int8] | type[np.uint8]
_UINT8 = TensorProto.UINT8
_FEATURES: tuple[Kind, ...] = ("tokens", "flat", "last", "sequence")
_IMAGE: tuple[Kind, ...] = ("image",)


def _scale(b: GraphBuilder, number: float) -> Value:
    return b.initializer(np.asarray(number, np.float32), "scale")


def _zero(b: GraphBuilder, number: int = 128) -> Value:
    return b.initializer(np.asarray(number, np.uint8), "zero")


def _integers(b: GraphBuilder, shape: list[int], kind: Integer) -> Value:
    limits = np.iinfo(kind)
    values = b.random.integers(limits.min, limits.max, tuple(shape), endpoint=True).astype(kind)
    return b.initializer(values, "quantised")


def _per_filter(b: GraphBuilder, count: int, kind: Integer) -> tuple[Value, Value]:
    """Scales and zero points: one each, or one per filter."""
    shape = (count,) if b.choices.chance(60) else ()
    scale = b.initializer(b.random.uniform(0.005, 0.02, shape).astype(np.float32), "scale")
    middle = 120 if kind is np.uint8 else 0
    return scale, b.initializer(np.full(shape, middle + b.choices.pick((0, 5))).astype(kind), "zero")


def _quantise(b: GraphBuilder, x: Value) -> tuple[Value, Value, Value]:
    scale, zero = _scale(b, 0.05), _zero(b, b.choices.pick((128, 117)))
    return b.one("QuantizeLinear", [x, scale, zero]), scale, zero


def _outer(b: GraphBuilder, x: Port) -> int:
    return b.choices.integer(2, 6)


@block("quantised and back", "QuantizeLinear", "DequantizeLinear", steps=True, opsets=RUNTIME_OPSET)
def there_and_back(b: GraphBuilder, x: Port) -> Value:
    """One scale, or one per channel."""
    if b.choices.chance(50):
        q, scale, zero = _quantise(b, x)
        return b.one("DequantizeLinear", [q, scale, zero])
    scale = b.initializer(b.random.uniform(0.02, 0.08, (x.channels,)).astype(np.float32), "scale")
    operands = [scale, b.initializer(b.random.integers(-5, 6, (x.channels,)).astype(np.int8), "zero")]
    q = b.one("QuantizeLinear", [x, *operands], {"axis": x.axis})
    return b.one("DequantizeLinear", [q, *operands], {"axis": x.axis})


@block("QDQ layer", "QuantizeLinear", "DequantizeLinear", steps=True, opsets=RUNTIME_OPSET)
def quantised_layer(b: GraphBuilder, x: Port) -> Value:
    """Activation and weight quantised and back, then the layer in float, then quantised and back."""
    q, scale, zero = _quantise(b, x)
    data = b.one("DequantizeLinear", [q, scale, zero])
    count = _outer(b, x)
    kind: Integer = np.int8 if b.choices.chance(50) else np.uint8
    if x.kind == "image":
        weight = _integers(b, [count, x.channels, *[1] * (x.rank - 2)], kind)
    else:
        weight = _integers(b, [x.channels, count], kind)
    axis = 0 if x.kind == "image" else 1
    operands = [weight, *_per_filter(b, count, kind)]
    stored = b.one("DequantizeLinear", operands, {"axis": axis})
    if x.kind == "image":
        y = b.one("Conv", [data, stored, b.bias([count])])
    else:
        y = b.one("Add", [b.one("MatMul", [data, stored]), b.bias([count])])
    q, scale, zero = _quantise(b, b.one("Relu", [y]))
    return b.one("DequantizeLinear", [q, scale, zero])


@block("QDQ weight alone", "DequantizeLinear", opsets=RUNTIME_OPSET)
def stored_weight(b: GraphBuilder, x: Port) -> Value:
    """Weights stored in 8 bits, activations in float; the matrix stands transposed now and then."""
    count = _outer(b, x)
    if x.kind == "image":
        weight = _integers(b, [count, x.channels, *[1] * (x.rank - 2)], np.int8)
        stored = b.one("DequantizeLinear", [weight, *_per_filter(b, count, np.int8)], {"axis": 0})
        return b.one("Conv", [x, stored])
    if b.choices.chance(50):
        weight = _integers(b, [count, x.channels], np.int8)
        stored = b.one("DequantizeLinear", [weight, *_per_filter(b, count, np.int8)], {"axis": 0})
        return b.one("MatMul", [x, b.one("Transpose", [stored], {"perm": [1, 0]})])
    weight = _integers(b, [x.channels, count], np.int8)
    return b.one("MatMul", [x, b.one("DequantizeLinear", [weight, *_per_filter(b, count, np.int8)], {"axis": 1})])


@block("weight quantised while running", "QuantizeLinear", "DequantizeLinear", on=_FEATURES, opsets=RUNTIME_OPSET)
def simulated_weight(b: GraphBuilder, x: Port) -> Value:
    """Quantisation-aware training: a float weight behind QuantizeLinear and DequantizeLinear."""
    weight = b.initializer(b.random.normal(0, 0.5, (x.channels, 4)).astype(np.float32), "weight")
    grid = [_scale(b, 0.02), b.initializer(np.asarray(0, np.int8), "zero")]
    return b.one("MatMul", [x, b.one("DequantizeLinear", [b.one("QuantizeLinear", [weight, *grid]), *grid])])


@block("QLinearConv", "QLinearConv", steps=True, on=_IMAGE, opsets=RUNTIME_OPSET, fits=lambda x: x.rank == 4)
def quantised_convolution(b: GraphBuilder, x: Port) -> Value:
    q, scale, zero = _quantise(b, x)
    groups = b.choices.pick((1, x.channels, *(() if x.channels % 2 else (2,))))
    count = groups * b.choices.integer(1, 2) if groups > 1 else _outer(b, x)
    weight = _integers(b, [count, x.channels // groups, 1, 1], np.int8)
    operands = [q, scale, zero, weight, *_per_filter(b, count, np.int8), _scale(b, 0.1), _zero(b)]
    if b.choices.chance(60):
        operands.append(b.initializer(b.random.integers(-900, 900, (count,)).astype(np.int32), "quantised_bias"))
    y = b.one("QLinearConv", operands, {"group": groups})
    return b.one("DequantizeLinear", [y, operands[6], operands[7]])


@block("QLinearMatMul", "QLinearMatMul", steps=True, on=("tokens", "flat"), opsets=(13, 20))
def quantised_product(b: GraphBuilder, x: Port) -> Value:
    q, scale, zero = _quantise(b, x)
    count = _outer(b, x)
    weight = _integers(b, [x.channels, count], np.int8)
    operands = [q, scale, zero, weight, *_per_filter(b, count, np.int8), _scale(b, 0.1), _zero(b)]
    return b.one("DequantizeLinear", [b.one("QLinearMatMul", operands), operands[6], operands[7]])


@block("MatMulInteger", "MatMulInteger", steps=True, on=("tokens", "flat"), opsets=RUNTIME_OPSET)
def integer_product(b: GraphBuilder, x: Port) -> Value:
    q, _, zero = _quantise(b, x)
    count = _outer(b, x)
    weight = _integers(b, [x.channels, count], np.int8)
    y = b.one("MatMulInteger", [q, weight, zero, _per_filter(b, count, np.int8)[1]])
    return b.one("Mul", [to_float(b, y), b.scalar(0.0008)])


@block("DynamicQuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", steps=True, on=("tokens", "flat"),
       opsets=RUNTIME_OPSET)  # fmt: skip
def dynamic_product(b: GraphBuilder, x: Port) -> Value:
    """As the runtime's dynamic quantisation writes a layer."""
    q, scale, zero = b.node("DynamicQuantizeLinear", [x], outputs=3)
    count = _outer(b, x)
    weight = _integers(b, [x.channels, count], np.uint8)
    weight_scale, weight_zero = _per_filter(b, count, np.uint8)
    y = to_float(b, b.one("MatMulInteger", [q, weight, zero, weight_zero]))
    y = b.one("Mul", [y, b.one("Mul", [scale, weight_scale])])
    return b.one("Add", [y, b.bias([count])])


@block("ConvInteger", "ConvInteger", steps=True, on=_IMAGE, opsets=RUNTIME_OPSET, fits=lambda x: x.rank == 4)
def integer_convolution(b: GraphBuilder, x: Port) -> Value:
    q, _, zero = _quantise(b, x)
    count = _outer(b, x)
    operands = [q, _integers(b, [count, x.channels, 1, 1], np.uint8), zero, _zero(b, 121)]
    return b.one("Mul", [to_float(b, b.one("ConvInteger", operands)), b.scalar(0.0008)])


# Operators of com.microsoft


def _foreign(
    b: GraphBuilder, name: str, operands: list[Value], shape: tuple[int, ...], dtype: int = _UINT8,
    attributes: dict[str, Attribute] | None = None,
) -> Value:  # fmt: skip
    return b.foreign(MICROSOFT, name, operands, shape, declared=False, dtype=dtype, attributes=attributes)


@block("fused quantised and back", "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear", steps=True)
def fused_there_and_back(b: GraphBuilder, x: Port) -> Value:
    shape = (x.channels,) if b.choices.chance(50) else ()
    operands = [
        b.initializer(b.random.uniform(0.02, 0.08, shape).astype(np.float32), "scale"),
        b.initializer(b.random.integers(100, 140, shape).astype(np.uint8), "zero"),
    ]
    along: dict[str, Attribute] = {"axis": x.axis} if shape else {}
    q = _foreign(b, "QuantizeLinear", [x, *operands], x.shape, attributes=along)
    return _foreign(b, "DequantizeLinear", [q, *operands], x.shape, TensorProto.FLOAT, along)


def _register_arithmetic(name: str) -> None:
    @block(name, f"{MICROSOFT}.{name}", steps=True, on=("image", "tokens", "flat"))
    def arithmetic(b: GraphBuilder, x: Port) -> Value:
        first, second = _quantise(b, x), _quantise(b, project(b, x, x.channels))
        result = [_scale(b, 0.1), _zero(b)]
        y = _foreign(b, name, [*first, *second, *result], x.shape)
        return b.one("DequantizeLinear", [y, *result])


def _register_activation(name: str) -> None:
    @block(name, f"{MICROSOFT}.{name}", steps=True, on=("image", "tokens", "flat"))
    def activation(b: GraphBuilder, x: Port) -> Value:
        result = [_scale(b, 0.02), _zero(b, 7)]
        return b.one("DequantizeLinear", [_foreign(b, name, [*_quantise(b, x), *result], x.shape), *result])


for _name in ("QLinearAdd", "QLinearMul"):
    _register_arithmetic(_name)
for _name in ("QLinearSigmoid", "QLinearLeakyRelu"):
    _register_activation(_name)


@block("QLinearConcat", "com.microsoft.QLinearConcat", steps=True, on=("image", "tokens", "flat"))
def quantised_concat(b: GraphBuilder, x: Port) -> Value:
    count = _outer(b, x)
    first, second = _quantise(b, x), _quantise(b, project(b, x, count))
    result = [_scale(b, 0.06), _zero(b)]
    shape = tuple(size + count if axis == x.axis else size for axis, size in enumerate(x.shape))
    y = _foreign(b, "QLinearConcat", [*result, *first, *second], shape, attributes={"axis": x.axis})
    return b.one("DequantizeLinear", [y, *result])


def _register_softmax(name: str, passes: bool) -> None:
    @block(name, "com.microsoft.QLinearSoftmax", steps=True, on=("image",), passes=passes, fits=lambda x: x.rank == 4)
    def softmax(b: GraphBuilder, x: Port) -> Value:
        result = [_scale(b, 1 / 256), _zero(b, 0)]
        attributes: dict[str, Attribute] = {"axis": 2 if passes else 1, "opset": 13}
        y = _foreign(b, "QLinearSoftmax", [*_quantise(b, x), *result], x.shape, attributes=attributes)
        return b.one("Add", [x, b.one("DequantizeLinear", [y, *result])])


_register_softmax("QLinearSoftmax across", True)
_register_softmax("QLinearSoftmax of the channels", False)


@block("QLinearGlobalAveragePool", "com.microsoft.QLinearGlobalAveragePool", steps=True, on=_IMAGE)
def quantised_global_pool(b: GraphBuilder, x: Port) -> Value:
    result = [_scale(b, 0.02), _zero(b)]
    shape = (*x.shape[:2], *[1] * (x.rank - 2))
    y = _foreign(b, "QLinearGlobalAveragePool", [*_quantise(b, x), *result], shape)
    return b.one("Mul", [x, b.one("DequantizeLinear", [y, *result])])


@block("QLinearAveragePool", "com.microsoft.QLinearAveragePool", steps=True, on=_IMAGE,
       fits=lambda x: x.rank == 4 and min(x.sizes) >= 2)  # fmt: skip
def quantised_pool(b: GraphBuilder, x: Port) -> Value:
    result = [_scale(b, 0.05), _zero(b)]
    shape = (*x.shape[:2], *(size - 1 for size in x.sizes))
    y = _foreign(b, "QLinearAveragePool", [*_quantise(b, x), *result], shape, attributes={"kernel_shape": [2, 2]})
    return b.one("DequantizeLinear", [y, *result])


@block("QGemm", "com.microsoft.QGemm", steps=True, on=("flat",))
def quantised_gemm(b: GraphBuilder, x: Port) -> Value:
    count, transposed = _outer(b, x), b.choices.integer(0, 1)
    weight = _integers(b, [count, x.channels] if transposed else [x.channels, count], np.int8)
    operands = [*_quantise(b, x), weight, *_per_filter(b, count, np.int8)]
    operands.append(b.initializer(b.random.integers(-900, 900, (count,)).astype(np.int32), "quantised_bias"))
    result = [_scale(b, 0.1), _zero(b)] if b.choices.chance(50) else []
    attributes: dict[str, Attribute] = {"transB": transposed}
    shape = (x.shape[0], count)
    if not result:
        return _foreign(b, "QGemm", operands, shape, TensorProto.FLOAT, attributes)
    y = _foreign(b, "QGemm", [*operands, *result], shape, attributes=attributes)
    return b.one("DequantizeLinear", [y, *result])


@block("MatMulIntegerToFloat", "com.microsoft.MatMulIntegerToFloat", steps=True, on=("flat", "tokens"))
def integer_product_to_float(b: GraphBuilder, x: Port) -> Value:
    count = _outer(b, x)
    q, scale, zero = _quantise(b, x)
    weight = _integers(b, [x.channels, count], np.uint8)
    weight_scale, weight_zero = _per_filter(b, count, np.uint8)
    operands = [q, weight, scale, weight_scale, zero, weight_zero, b.bias([count])]
    return _foreign(b, "MatMulIntegerToFloat", operands, (*x.shape[:-1], count), TensorProto.FLOAT)


@block("DynamicQuantizeMatMul", "com.microsoft.DynamicQuantizeMatMul", steps=True, on=("flat", "tokens"))
def dynamic_fused_product(b: GraphBuilder, x: Port) -> Value:
    count = _outer(b, x)
    weight = _integers(b, [x.channels, count], np.uint8)
    operands = [x, weight, *_per_filter(b, count, np.uint8), b.bias([count])]
    return _foreign(b, "DynamicQuantizeMatMul", operands, (*x.shape[:-1], count), TensorProto.FLOAT)


@block("quantised residual", "QuantizeLinear", "DequantizeLinear", "Add", on=_IMAGE, steps=True, opsets=RUNTIME_OPSET)
def quantised_residual(b: GraphBuilder, x: Port) -> Value:
    """Both sides of an addition quantised per channel."""
    branch = port("image", b.one("Relu", [project(b, x, x.channels)]))
    return b.one("Add", [there_and_back(b, x), there_and_back(b, branch)])
