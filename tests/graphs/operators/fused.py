"""Blocks with the float operators of com.microsoft that onnxruntime's optimiser leaves behind."""

import numpy as np
from onnx import TensorProto

from tests.graphs import weighted
from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import MICROSOFT, Kind, Port, block

_FLOAT = TensorProto.FLOAT
_FEATURES: tuple[Kind, ...] = ("tokens", "flat", "last", "sequence")


def _register_activation(name: str) -> None:
    @block(f"fused {name}", f"{MICROSOFT}.{name}")
    def activation(b: GraphBuilder, x: Port) -> Value:
        return b.foreign(MICROSOFT, name, [x], x.shape, declared=x.kind != "sequence" and b.choices.chance(50))


def _register_biased(name: str) -> None:
    @block(name, f"{MICROSOFT}.{name}", on=_FEATURES)
    def biased(b: GraphBuilder, x: Port) -> Value:
        operands = [x] if name == "FastGelu" and b.choices.chance(40) else [x, b.bias([x.channels])]
        return b.foreign(MICROSOFT, name, operands, x.shape, declared=False)


for _name in ("Gelu", "QuickGelu"):
    _register_activation(_name)
for _name in ("BiasGelu", "FastGelu"):
    _register_biased(_name)


@block("FusedConv", "com.microsoft.FusedConv", on=("image",), fits=lambda x: x.rank == 4)
def convolution(b: GraphBuilder, x: Port) -> Value:
    """Dense, depthwise or grouped; with a sum as fourth operand where the channels fit."""
    groups = b.choices.pick((1, x.channels, *(() if x.channels % 2 else (2,))))
    count = x.channels
    operands: list[Value | None] = [x, b.weight([count, count // groups, 1, 1], count // groups), b.bias([count])]
    if b.choices.chance(40):
        operands.append(b.one("Tanh", [x]))
    activation = b.choices.pick(("Relu", "Tanh", "Sigmoid"))
    attributes: dict[str, Attribute] = {"activation": activation, "group": groups}
    return b.foreign(MICROSOFT, "FusedConv", operands, x.shape, declared=b.choices.chance(50), attributes=attributes)


@block("FusedGemm", "com.microsoft.FusedGemm", on=("flat",))
def general_product(b: GraphBuilder, x: Port) -> Value:
    count, transposed = b.choices.integer(2, 6), b.choices.integer(0, 1)
    weight = b.weight([count, x.channels] if transposed else [x.channels, count], x.channels)
    attributes: dict[str, Attribute] = {"activation": "Relu", "transB": transposed}
    operands = [x, weight, b.bias([count])]
    return b.foreign(MICROSOFT, "FusedGemm", operands, (x.shape[0], count), declared=False, attributes=attributes)


@block("FusedMatMul", "com.microsoft.FusedMatMul", on=("tokens",))
def product(b: GraphBuilder, x: Port) -> Value:
    count, transposed = b.choices.integer(2, 6), b.choices.integer(0, 1)
    weight = b.weight([count, x.channels] if transposed else [x.channels, count], x.channels)
    attributes: dict[str, Attribute] = {"alpha": 0.7, "transB": transposed}
    shape = (*x.shape[:-1], count)
    return b.foreign(MICROSOFT, "FusedMatMul", [x, weight], shape, declared=False, attributes=attributes)


@block("FusedMatMul of activations", "com.microsoft.FusedMatMul", on=("tokens",))
def fused_attention(b: GraphBuilder, x: Port) -> Value:
    """Scaled scores of one head in one operator."""
    query, key, value = (weighted.matmul(b, x, b.choices.pick((4,))) for _ in range(3))
    attributes: dict[str, Attribute] = {"alpha": 0.5, "transB": 1}
    shape = (*x.shape[:2], x.shape[1])
    scores = b.foreign(MICROSOFT, "FusedMatMul", [query, key], shape, declared=False, attributes=attributes)
    y = b.one("Softmax", [scores], {"axis": -1})
    return b.foreign(MICROSOFT, "FusedMatMul", [y, value], value.shape, declared=False)


def _register_skip(name: str, count: int) -> None:
    @block(name, f"{MICROSOFT}.{name}", on=("tokens",))
    def skip(b: GraphBuilder, x: Port) -> Value:
        """Normalised sum of x and a layer's result; the sum itself is read as well."""
        y = weighted.matmul(b, b.one("Relu", [weighted.matmul(b, x, b.choices.integer(3, 6))]), x.channels)
        operands = [y, x, b.positive([x.channels], "scale")]
        if count == 5:
            operands += [b.bias([x.channels]), b.bias([x.channels])][: b.choices.integer(0, 2)]
        results = [(x.shape, _FLOAT)]
        attributes: dict[str, Attribute] = {"epsilon": 0.01}
        if b.choices.chance(50):
            return b.stated(name, operands, results, domain=MICROSOFT, attributes=attributes)[0]
        four = [results[0], None, None, results[0]]
        normal, total = b.stated(name, operands, four, domain=MICROSOFT, attributes=attributes)
        return b.one("Add", [normal, b.one("Tanh", [total])])


_register_skip("SkipLayerNormalization", 5)
_register_skip("SkipSimplifiedLayerNormalization", 3)


@block("EmbedLayerNormalization", "com.microsoft.EmbedLayerNormalization", "ArgMax", on=("tokens",), passes=False,
       steps=True, opsets=(13, 21))  # fmt: skip
def embedding(b: GraphBuilder, x: Port) -> Value:
    """Words are the best feature of every token; behind it two layers with free units."""
    wide = b.choices.integer(4, 6)
    words = b.one("Cast", [b.one("ArgMax", [x], {"axis": -1, "keepdims": 0})], {"to": TensorProto.INT32})
    tables = [b.initializer(b.away_from_zero([count, wide]), "table") for count in (x.channels, x.shape[1])]
    operands = [
        words,
        None,
        *tables,
        None,
        b.positive([wide], "scale"),
        b.initializer(np.zeros(wide, np.float32), "shift"),
    ]
    (y, _) = b.stated(
        "EmbedLayerNormalization", operands,
        [((*x.shape[:2], wide), _FLOAT), ((x.shape[0],), TensorProto.INT32)], domain=MICROSOFT,
    )  # fmt: skip
    return weighted.matmul(b, b.one("Relu", [weighted.matmul(b, y, 5)]), 4)
