"""Every entry of the table of lowerings: the same values, and gradients against finite differences."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.operators.table import operators
from tests.train.cases import Case, check, errors_of, ints, op
from tests.train.graphs import random

pytestmark = pytest.mark.usefixtures("engine")

PLANE = (4, 5, 6)
ONES = np.ones(4, np.float32)


def axes(operator: str, *values: int, opset: int = 18, shape: tuple[int, ...] = PLANE, **attributes: Any) -> Case:
    """A reduction with its axes where the opset has them."""
    if opset >= 18:
        return Case([op(operator, "axes", **attributes)], shape, {"axes": ints(*values)}, opset)
    return Case([op(operator, axes=list(values), **attributes)], shape, {}, opset)


def normalised(operator: str, entries: int, shape: tuple[int, ...] = PLANE, opset: int = 17, **attributes: Any) -> Case:
    more = {"scale": random([entries], seed=4), "shift": random([entries], seed=5)}
    exact = operator != "GroupNormalization"  # which the reference computes in float32
    return Case([op(operator, "scale", "shift", **attributes)], shape, more, opset, exact=exact)


def transposed(
    weight: tuple[int, ...], shape: tuple[int, ...] = (4, 4, 5), bias: bool = False, **attributes: Any
) -> Case:
    more = {"k": random(weight, seed=4, scale=0.5)}
    if bias:
        more["bias"] = random([weight[1] * attributes.get("group", 1)], seed=5)
    return Case([op("ConvTranspose", *more, **attributes)], shape, more, exact=False)


def resized(
    scales: tuple[float, ...] = (), sizes: tuple[int, ...] = (), shape: tuple[int, ...] = PLANE, **attributes: Any
) -> Case:
    more = {"s": np.array(scales, np.float32)} if scales else {"s": ints(3, *sizes)}
    inputs = ("", "s") if scales else ("", "", "s")
    return Case([op("Resize", *inputs, **attributes)], shape, more, 18, exact=False)


def padded(mode: str, *amounts: int) -> Case:
    exact = min(amounts) >= 0  # the reference cuts nothing off
    return Case([op("Pad", "amounts", mode=mode)], PLANE, {"amounts": ints(*amounts)}, 19, exact=exact)


def einsum(equation: str, shape: tuple[int, ...], *others: tuple[int, ...]) -> Case:
    more = {f"e{index}": random(other, seed=4 + index) for index, other in enumerate(others)}
    return Case([op("Einsum", *more, equation=equation)], shape, more)


def recurrent(
    operator: str,
    *,
    bias: bool = True,
    initial: bool = False,
    peepholes: bool = False,
    steps: int = 5,
    **attributes: Any,
) -> Case:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    hidden, directions = 3, 2 if attributes.get("direction") == "bidirectional" else 1
    more = {
        "W": random([directions, gates * hidden, 4], seed=4, scale=0.5),
        "R": random([directions, gates * hidden, hidden], seed=5, scale=0.5),
    }
    names = ["W", "R", "B" if bias else ""]
    if bias:
        more["B"] = random([directions, 2 * gates * hidden], seed=6, scale=0.5)
    lengths = attributes.pop("lengths", None)
    if lengths is not None:
        more["lengths"] = np.array(lengths, np.int32)
    names.append("lengths" if lengths is not None else "")
    if initial:
        more["h0"] = random([directions, 3, hidden], seed=7)
    names.append("h0" if initial else "")
    if operator == "LSTM":
        if initial:
            more["c0"] = random([directions, 3, hidden], seed=8)
        if peepholes:
            more["P"] = random([directions, 3 * hidden], seed=9)
        names += ["c0" if initial else "", "P" if peepholes else ""]
    outputs = ["Y", "Yh", "Yc"][: 3 if operator == "LSTM" else 2]
    last = outputs[-1]
    nodes = [
        helper.make_node("Transpose", ["h"], ["seq"], perm=[1, 0, 2]),
        helper.make_node(operator, ["seq", *names], outputs, name="node", hidden_size=hidden, **attributes),
        helper.make_node("Transpose", ["Y"], ["Yt"], perm=[2, 0, 1, 3]),
        helper.make_node("Transpose", ["Yh"], ["Yht"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["Yht", "one"], ["Yhu"]),
        helper.make_node("Concat", ["Yt", "Yhu"], ["Z"], axis=1),
    ]
    if operator == "LSTM":
        nodes += [
            helper.make_node("Transpose", [last], ["Yct"], perm=[1, 0, 2]),
            helper.make_node("Unsqueeze", ["Yct", "one"], ["Ycu"]),
            helper.make_node("Concat", ["Z", "Ycu"], ["y"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["Z"], ["y"]))
    return Case(nodes, (steps, 4), {**more, "one": ints(1)}, exact=False)


#: Attributes of Swish.
ALPHAS: tuple[dict[str, Any], ...] = ({}, {"alpha": 1.3})

CASES: dict[str, list[Case]] = {
    "Acos": [Case([op("Acos")], (6,), spread=0.3)],
    "Acosh": [Case([op("Abs", outputs=["a"]), helper.make_node("Add", ["a", "k"], ["b"]),
                    helper.make_node("Acosh", ["b"], ["y"])], (6,), {"k": np.array([1.5], np.float32)})],
    "Asin": [Case([op("Asin")], (6,), spread=0.3)],
    "Asinh": [Case([op("Asinh")], (6,))],
    "Atan": [Case([op("Atan")], (6,))],
    "Atanh": [Case([op("Atanh")], (6,), spread=0.3)],
    "AveragePool": [
        Case([op("AveragePool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])], PLANE),
        Case([op("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")], PLANE, exact=False),
        Case([op("AveragePool", kernel_shape=[2, 2, 2], strides=[1, 2, 1])], (2, 3, 4, 3)),
    ],
    "BatchNormalization": [
        Case(
            [op("BatchNormalization", "scale", "shift", "mean", "var")],
            PLANE,
            {"scale": random([4]), "shift": random([4], seed=2), "mean": random([4], seed=3), "var": ONES},
        )
    ],
    "CastLike": [Case([op("CastLike", "k")], (6,), {"k": np.ones(1, np.float32)})],
    "Celu": [Case([op("Celu", alpha=0.7)], (6,))],
    "Conv": [
        Case([op("Conv", "k", pads=[1, 0, 1, 2], strides=[2, 1])], PLANE, {"k": random([3, 4, 3, 2])}),
        Case([op("Conv", "k", auto_pad="SAME_UPPER", strides=[2, 2])], PLANE, {"k": random([3, 4, 3, 2])}),
        Case([op("Conv", "k", auto_pad="SAME_LOWER", strides=[1, 2])], PLANE, {"k": random([3, 4, 2, 2])}, exact=False),
        Case([op("Conv", "k", group=4, pads=[1, 1])], (4, 7), {"k": random([8, 1, 3])}),
    ],
    "ConvTranspose": [
        transposed((4, 3, 3, 3)),
        transposed((4, 3, 2, 2), strides=[2, 2], bias=True),
        transposed((4, 3, 3, 2), strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 2], bias=True),
        transposed((4, 2, 3, 3), strides=[2, 1], group=2, dilations=[1, 2], bias=True),
        transposed((4, 1, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], group=4),
        transposed((4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        transposed((4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
        transposed((4, 3, 4, 4), strides=[3, 3], output_shape=[12, 14]),
        transposed((4, 3, 1, 1), pads=[1, 1, 1, 1]),
        transposed((3, 2, 3), shape=(3, 6), strides=[2], bias=True),
        transposed((2, 2, 2, 2, 2), shape=(2, 2, 3, 2), strides=[2, 1, 2]),
    ],
    "Cosh": [Case([op("Cosh")], (6,))],
    "CumSum": [
        Case([op("CumSum", "axis", exclusive=e, reverse=r)], (3, 4, 2), {"axis": np.array(axis, np.int64)})
        for axis, e, r in ((1, 0, 0), (-1, 1, 0), (2, 0, 1), (1, 1, 1))
    ],
    "DepthToSpace": [Case([op("DepthToSpace", blocksize=2, mode=mode)], (8, 2, 3)) for mode in ("DCR", "CRD")],
    "Einsum": [
        einsum("bij,jk->bik", (3, 4), (4, 5)),
        einsum("bij,kj->bki", (3, 4), (5, 4)),
        einsum("bhid,hjd->bhij", (2, 3, 4), (2, 5, 4)),
        einsum("...i,ij->...j", (2, 3), (3, 4)),
        einsum("bij->bji", (3, 4)),
        einsum("bij->b", (3, 4)),
        einsum("bij,jk,kl->bil", (3, 4), (4, 5), (5, 2)),
        einsum("bi,j->bij", (3,), (4,)),
        einsum("bi,i", (3,), (3,)),
        einsum("bij,ij->bij", (3, 4), (3, 4)),
        einsum("bxy,yz->bz", (3, 4), (4, 2)),
    ],
    "Elu": [Case([op("Elu", alpha=0.5)], (6,))],
    "GRU": [
        recurrent("GRU"),
        recurrent("GRU", linear_before_reset=1, direction="reverse", initial=True),
        recurrent("GRU", linear_before_reset=1, direction="bidirectional", lengths=[5, 2, 4]),
        recurrent("GRU", bias=False, steps=1),
    ],
    "Gelu": [Case([op("Gelu", approximate=a)], (6,), opset=20, exact=False) for a in ("none", "tanh")],
    "Gemm": [
        Case([op("Gemm", "k", "c")], (6,), {"k": random([6, 3]), "c": np.array(0.5, np.float32)}, exact=False),
        Case([op("Gemm", "k", "c", beta=0.0)], (6,), {"k": random([6, 3]), "c": ONES[:3]}),
    ],
    "GlobalLpPool": [Case([op("GlobalLpPool", p=p)], PLANE, exact=False) for p in (1, 2, 3)],
    "GlobalMaxPool": [Case([op("GlobalMaxPool")], PLANE), Case([op("GlobalMaxPool")], (3, 7), exact=False)],
    "GroupNormalization": [
        normalised("GroupNormalization", 4, opset=21, num_groups=2),
        normalised("GroupNormalization", 2, opset=18, num_groups=2, epsilon=1e-3),
        normalised("GroupNormalization", 6, shape=(6, 5), opset=21, num_groups=3),
    ],
    "HardSigmoid": [Case([op("HardSigmoid", alpha=0.3)], (6,))],
    "HardSwish": [Case([op("HardSwish")], (6,))],
    "InstanceNormalization": [normalised("InstanceNormalization", 4), normalised("InstanceNormalization", 3, (3, 9))],
    "LRN": [Case([op("LRN", size=size, alpha=0.1, beta=0.6, bias=1.5)], PLANE, exact=False) for size in (1, 3, 5)],
    "LSTM": [
        recurrent("LSTM"),
        recurrent("LSTM", direction="reverse", initial=True, peepholes=True),
        recurrent("LSTM", direction="bidirectional", initial=True, lengths=[5, 1, 3]),
        recurrent("LSTM", bias=False, clip=0.4),
        recurrent("LSTM", activations=["Sigmoid", "Relu", "Softsign"]),
    ],
    "LayerNormalization": [
        Case([op("LayerNormalization", "k")], (3, 4), {"k": random([4])}),
        Case([op("LayerNormalization", "k", "b", axis=1)], (3, 4), {"k": random([3, 4]), "b": random([3, 4], seed=2)}),
    ],
    "LpNormalization": [
        Case([op("LpNormalization", p=p, axis=a)], (3, 4), exact=False) for p in (1, 2) for a in (1, -1)
    ],
    "LpPool": [
        Case([op("LpPool", kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 1], p=p)], PLANE, exact=False)
        for p in (1, 2, 3)
    ],
    "MatMul": [
        Case([op("MatMul", "k")], (3, 4), {"k": random([4])}),
        Case([op("MatMul", "k")], (3, 4), {"k": random([3, 4, 2])}),
    ],
    "Max": [
        Case([op("Max", *names)], (6,), {name: random([6], seed=4 + int(name[1])) for name in names})
        for names in ([], ["k1"], ["k1", "k2"], ["k1", "k2", "k3"])
    ],
    "MaxPool": [
        Case([op("MaxPool", kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER")], PLANE, exact=False),
        Case([op("MaxPool", kernel_shape=[2], strides=[2])], (3, 8)),
        Case([op("MaxPool", kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1)], PLANE, exact=False),
    ],
    "Mean": [Case([op("Mean", "k", "h")], (6,), {"k": random([6])})],
    "MeanVarianceNormalization": [
        Case([op("MeanVarianceNormalization")], PLANE, exact=False),
        Case([op("MeanVarianceNormalization", axes=[1, 2])], PLANE, exact=False),
    ],
    "Min": [
        Case([op("Min", *names)], (6,), {name: random([6], seed=4 + int(name[1])) for name in names})
        for names in (["k1"], ["k1", "k2"])
    ],
    "Mish": [Case([op("Mish")], (6,), opset=18, exact=False)],
    "PRelu": [Case([op("PRelu", "k")], (3, 4), {"k": random([3, 1])})],
    "Pad": [
        padded("reflect", 0, 0, 2, 1, 0, 0, 1, 3),
        padded("edge", 0, 1, 2, 1, 0, 0, 1, 3),
        padded("wrap", 0, 0, 2, 1, 0, 0, 1, 3),
        padded("constant", 0, 0, 2, 1, 0, 0, 1, 0),
        padded("constant", 0, 0, -1, 1, 0, 0, 1, -2),
        Case([op("Pad", "a", "", "where")], PLANE, {"a": ints(1, 2, 0, 1), "where": ints(2, -1)}, 19),
    ],
    "Pow": [Case([op("Pow", "k")], (6,), {"k": np.array(3, np.int64)})],
    "RMSNormalization": [
        Case([op("RMSNormalization", "k", epsilon=1e-3)], (3, 4), {"k": random([4])}, 23, exact=False),
        Case([op("RMSNormalization", "k", axis=1)], (3, 4), {"k": random([3, 4])}, 23, exact=False),
    ],
    "RNN": [
        recurrent("RNN"),
        recurrent("RNN", direction="bidirectional", initial=True, activations=["Tanh", "Relu"]),
    ],
    "ReduceL1": [axes("ReduceL1", 1, 3), axes("ReduceL1", 2, opset=13, keepdims=0)],
    "ReduceL2": [axes("ReduceL2", 1, 3, keepdims=0), axes("ReduceL2", -1, opset=13)],
    "ReduceLogSum": [
        Case([op("Exp", outputs=["e"]), helper.make_node("ReduceLogSum", ["e"], ["y"], axes=[2], keepdims=k)], PLANE)
        for k in (0, 1)
    ],
    "ReduceLogSumExp": [axes("ReduceLogSumExp", 1, 2), axes("ReduceLogSumExp", -1, opset=13, keepdims=0)],
    "ReduceMax": [
        axes("ReduceMax", 2, 3),
        axes("ReduceMax", 1, opset=13, keepdims=0),
        axes("ReduceMax", -1, keepdims=0),
    ],
    "ReduceMin": [axes("ReduceMin", 2, 3, opset=17), axes("ReduceMin", 1, keepdims=0)],
    "ReduceProd": [axes("ReduceProd", 2), axes("ReduceProd", 2, 3, opset=13, keepdims=0)],
    "ReduceSumSquare": [axes("ReduceSumSquare", 1), axes("ReduceSumSquare", 1, 2, opset=13, keepdims=0)],
    "Resize": [
        resized((1, 1, 2, 2), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        resized((1, 1, 2, 3), mode="nearest"),
        resized((1, 1, 2, 2), mode="linear"),
        resized((1, 1, 2, 3), mode="linear", coordinate_transformation_mode="align_corners"),
        resized((1, 1, 2, 2), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        resized((1, 1, 1.7, 0.5), mode="linear"),
        resized((1, 1, 0.6, 1.0), mode="nearest", nearest_mode="ceil"),
        resized(sizes=(4, 7, 9), mode="linear"),
        resized((1, 1, 2, 2), mode="cubic"),
        resized((1, 1, 0.5, 0.5), mode="linear", antialias=1),
        resized((1, 1, 2), shape=(4, 5), mode="nearest"),
        Case([op("Resize", "", "s", axes=[2, 3], mode="linear")], PLANE, {"s": 2 * ONES[:2]}, 18, exact=False),
    ],
    "Selu": [Case([op("Selu")], (6,))],
    "Shrink": [Case([op("Shrink", lambd=0.3, bias=0.1)], (8,))],
    "Sinh": [Case([op("Sinh")], (6,))],
    "Slice": [Case([op("Slice", "a", "b", "c", "d")], (6,), {"a": ints(5), "b": ints(0), "c": ints(1), "d": ints(-2)})],
    "Softplus": [Case([op("Softplus")], (6,))],
    "Softsign": [Case([op("Softsign")], (6,))],
    "SpaceToDepth": [Case([op("SpaceToDepth", blocksize=2)], (3, 4, 6))],
    "Sum": [Case([op("Sum", "k", "h")], (6,), {"k": random([6])})],
    "Swish": [Case([op("Swish", **alpha)], (6,), opset=24) for alpha in ALPHAS],
    "Tan": [Case([op("Tan")], (6,), spread=0.3)],
    "ThresholdedRelu": [Case([op("ThresholdedRelu", alpha=0.2)], (8,))],
    "Where": [
        Case(
            [op("Greater", "zero", outputs=["c"]), helper.make_node("Where", ["c", "h", "k"], ["y"])],
            (3, 4),
            {"zero": np.zeros(1, np.float32), "k": random([4])},
        )
    ],
}  # fmt: skip

#: Operators the engine differentiates itself, in forms that are easily wrong.
OWN: dict[str, list[Case]] = {
    "Expand": [Case([op("Expand", "to")], (1, 4), {"to": ints(3, 5, 4)})],
    "Trilu": [Case([op("Trilu", upper=u)], (4, 4)) for u in (0, 1)],
    "Erf": [Case([op("Erf")], (6,), exact=False)],
    "Abs": [Case([op("Abs")], (6,))],
    "Split": [Case([op("Split", outputs=["a", "b"], axis=1), helper.make_node("Mul", ["a", "b"], ["y"])], (6,))],
    "Tile": [Case([op("Tile", "k")], (3, 2), {"k": ints(1, 2, 3)})],
    "TopK": [Case([op("TopK", "k", outputs=["y", "i"])], (6,), {"k": ints(3)}, exact=False)],
    "GatherElements": [Case([op("GatherElements", "k", axis=1)], (4,), {"k": ints(0, 2, 3, 1, 1, 1).reshape(3, 2)})],
    "ScatterElements": [
        Case(
            [op("ScatterElements", "i", "u", axis=1)],
            (4,),
            {"i": ints(0, 2, 3, 1, 1, 0).reshape(3, 2), "u": random([3, 2])},
            exact=False,
        )
    ],
    "Scatter": [
        Case(
            [op("Scatter", "i", "u", axis=1)],
            (4,),
            {"i": ints(0, 2, 3, 1, 1, 0).reshape(3, 2), "u": random([3, 2])},
            9,
            exact=False,
        )
    ],
    "Floor": [Case([op("Floor", outputs=["f"]), helper.make_node("Sub", ["h", "f"], ["y"])], (6,))],
    "Softmax": [
        Case([op("Softmax", axis=a, outputs=["s"]), helper.make_node("Mul", ["s", "k"], ["y"])], (3, 4), {"k": ONES})
        for a in (1, -1)
    ],
}  # fmt: skip


def every(table: dict[str, list[Case]]) -> list[Any]:
    return [pytest.param(case, id=f"{name}-{at}") for name in table for at, case in enumerate(table[name])]


@pytest.mark.parametrize("case", every(CASES))
def test_lowered_operator_has_its_values_and_the_right_gradient(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", every(OWN))
def test_operator_of_the_engine_has_its_values_and_the_right_gradient(case: Case) -> None:
    check(case)


def test_every_entry_of_the_table_has_its_cases() -> None:
    lowered = {entry.name for entry in operators() if entry.lowering is not None and not entry.domain}
    assert set(CASES) == {name for name in lowered if onnx.defs.has(name)}


@pytest.mark.parametrize("name", ["Atan", "LSTM"])
def test_wrong_gradient_would_be_noticed(name: str) -> None:
    assert errors_of(CASES[name][0], planted=0.9)[1] > 5e-2
