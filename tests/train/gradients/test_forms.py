"""Gradients of operators in every form they come in, against differences of the same graph in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxadmm.train.backward.blocks import channel_block
from onnxadmm.train.backward.faster import make_faster
from onnxadmm.train.backward.gradient import build_gradient_graph, gradient_name
from onnxadmm.train.engine import inference_session
from onnxadmm.train.prepare.stops import stop_node
from tests.train.cases import ints
from tests.train.graphs import Array, in_double, random

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """Nodes from some of ``shapes`` to ``y``.

    Attributes:
        shapes: of what is differentiated by, by name; None for an axis leaves its length open.
        constants: what else they read.
        exact: whether ONNX's reference implementation computes them in float64.
    """

    nodes: Sequence[onnx.NodeProto]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 17
    open_sizes: bool = False
    exact: bool = True


def form(
    operator: str,
    *shapes: tuple[int, ...],
    constants: Mapping[str, Array] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    open_sizes: bool = False,
    exact: bool = True,
    domain: str = "",
    **attributes: Any,
) -> Form:
    """One node of operands ``a``, ``b``..., then the constants."""
    names = "abcd"[: len(shapes)]
    more = constants or {}
    given = [*names, *more] if inputs is None else inputs
    node = helper.make_node(operator, given, list(outputs), name="node", domain=domain, **attributes)
    return Form([node], dict(zip(names, shapes, strict=True)), more, opset, open_sizes, exact)


def numbers(*values: float) -> Array:
    return np.array(values, np.float32)


def conv(x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Form:
    shapes = (x, w, (w[0],)) if bias else (x, w)
    return form("Conv", *shapes, exact=len(x) != 3, **attributes)


def batch_norm(shape: tuple[int, ...]) -> Form:
    """By the statistics of the batch, as they stand in a training copy; the scale is ``b``, the shift ``c``."""
    axes = [axis for axis in range(len(shape)) if axis != 1]
    nodes = [
        stop_node("a", "s"),
        helper.make_node("ReduceMean", ["s"], ["mean"], axes=axes, keepdims=1),
        helper.make_node("Sub", ["s", "mean"], ["away"]),
        helper.make_node("Mul", ["away", "away"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=axes, keepdims=0),
        helper.make_node("Reshape", ["mean", "line"], ["m"]),
        helper.make_node("BatchNormalization", ["a", "b", "c", "m", "variance"], ["y"], epsilon=1e-3),
    ]
    return Form(nodes, {"a": shape, "b": (3,), "c": (3,)}, {"line": ints(-1)})


FORMS: dict[str, Form] = {
    # Broadcasting
    **{f"{name} of equal shapes": form(name, (2, 3), (2, 3)) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    **{f"{name} along rows": form(name, (4, 2, 3), (3,)) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    **{f"{name} both ways": form(name, (2, 1, 3), (4, 1)) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    **{f"{name} of a number": form(name, (), (2, 3)) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    **{
        f"{name}, lengths not known": form(name, (4, 2, 3), (2, 1), open_sizes=True)
        for name in ("Add", "Sub", "Mul", "Div", "Max")
    },
    "a value with itself": form("Mul", (2, 3), inputs=["a", "a"]),
    "several readers": Form(
        [
            helper.make_node("Tanh", ["a"], ["t"]),
            helper.make_node("Mul", ["t", "a"], ["p"]),
            helper.make_node("Add", ["p", "t"], ["q"]),
            helper.make_node("Sub", ["q", "a"], ["y"]),
        ],
        {"a": (2, 3)},
    ),
    "where": form("Where", (2, 3), (3,), inputs=["c", "a", "b"], constants={"c": np.array([[True], [False]])}),
    "max of three": form("Max", (2, 3), (3,), (1, 1)),
    "powers": form("Pow", (2, 3), constants={"e": numbers(2.0, 0.0, 3.0)}),
    "clip": form("Clip", (2, 5), constants={"low": np.float32(-0.5), "high": np.float32(0.7)}),
    "clip from 0": form("Clip", (2, 5), constants={"low": np.float32(0), "high": np.float32(0.7)}),
    "clip below": form("Clip", (2, 5), constants={"low": np.float32(-0.5)}),
    "clip above": form("Clip", (2, 5), inputs=["a", "", "high"], constants={"high": np.float32(0.5)}),
    "clip without limits": form("Clip", (2, 5), constants={"low": np.float32(-np.inf), "high": np.float32(np.inf)}),
    **{f"{name}": form(name, (2, 5)) for name in ("Abs", "Cos", "Exp", "Neg", "Relu", "Sigmoid", "Sin", "Tanh")},
    "leaky relu": form("LeakyRelu", (2, 5), alpha=0.3),
    "erf": form("Erf", (2, 5), exact=False),
    **{
        f"{name} of positive numbers": Form(
            [helper.make_node("Exp", ["a"], ["p"]), helper.make_node(name, ["p"], ["y"])], {"a": (2, 5)}
        )
        for name in ("Log", "Sqrt", "Reciprocal")
    },
    "gelu": form("Gelu", (2, 5), domain="com.microsoft", exact=False),
    "fast gelu with a bias": form("FastGelu", (2, 5), (5,), domain="com.microsoft", exact=False),
    "fast gelu": form("FastGelu", (2, 5), domain="com.microsoft", exact=False),
    "bias gelu": form("BiasGelu", (2, 5), (5,), domain="com.microsoft", exact=False),
    "quick gelu": form("QuickGelu", (2, 5), domain="com.microsoft", exact=False, alpha=1.3),
    "cast and back": Form(
        [helper.make_node("Cast", ["a"], ["d"], to=11), helper.make_node("Cast", ["d"], ["y"], to=1)], {"a": (2, 5)}
    ),
    # Products
    "matrices": form("MatMul", (3, 4), (4, 5)),
    "a stack and a matrix": form("MatMul", (2, 3, 4), (4, 5)),
    "a matrix and a stack": form("MatMul", (3, 4), (2, 4, 5)),
    "stacks": form("MatMul", (2, 3, 4), (2, 4, 5)),
    "stacks both ways": form("MatMul", (2, 1, 3, 4), (6, 4, 5)),
    "a stack of one": form("MatMul", (3, 2, 4), (1, 4, 5)),
    **{
        f"gemm {ta} {tb}": form(
            "Gemm", (4, 3) if ta else (3, 4), (5, 4) if tb else (4, 5), (5,), transA=ta, transB=tb, alpha=0.7, beta=1.3
        )
        for ta in (0, 1)
        for tb in (0, 1)
    },
    "gemm with a column": form("Gemm", (3, 4), (4, 5), (3, 1)),
    "gemm alone": form("Gemm", (3, 4), (4, 5)),
    # Moves
    "reshape": form("Reshape", (2, 6), constants={"to": ints(3, -1)}),
    "reshape, lengths not known": form("Reshape", (2, 6), constants={"to": ints(3, -1)}, open_sizes=True),
    "flatten": form("Flatten", (2, 3, 4), axis=2),
    "squeeze": form("Squeeze", (2, 1, 3), constants={"axes": ints(1)}),
    "unsqueeze": form("Unsqueeze", (2, 3), constants={"axes": ints(0, -1)}),
    "transpose": form("Transpose", (2, 3, 4), perm=[2, 0, 1]),
    "transpose as it is": form("Transpose", (2, 3, 4)),
    "expand": form("Expand", (3, 1), constants={"to": ints(2, 1, 4)}),
    "tile": form("Tile", (2, 3), constants={"many": ints(3, 2)}),
    "concat": form("Concat", (2, 3), (2, 1), (2, 2), axis=-1),
    "concat of one": form("Concat", (2, 3), axis=0),
    "split": Form(
        [
            helper.make_node("Split", ["a", "sizes"], ["p", "q", "s"], axis=1),
            helper.make_node("Add", ["p", "s"], ["y"]),
        ],
        {"a": (2, 5)},
        {"sizes": ints(2, 1, 2)},
    ),
    "pad": form("Pad", (2, 3), constants={"amounts": ints(1, 0, 0, 2)}),
    "pad of nothing": form("Pad", (2, 3), constants={"amounts": ints(0, 0, 0, 0)}),
    "slice": form("Slice", (5, 6), constants={"start": ints(1, -5), "end": ints(4, 100), "axes": ints(0, 1)}),
    "slice in steps": form(
        "Slice", (5, 7), constants={"start": ints(4, 1), "end": ints(-100, 7), "axes": ints(0, 1), "by": ints(-2, 3)}
    ),
    "slice of nothing": Form(
        [
            helper.make_node("Slice", ["a", "one", "one"], ["s"]),
            helper.make_node("Concat", ["s", "a"], ["y"], axis=0),
        ],
        {"a": (3, 2)},
        {"one": ints(1)},
    ),
    "slice by bounds that are computed": Form(
        [
            helper.make_node("Shape", ["b"], ["n"]),
            helper.make_node("Slice", ["a", "zero", "n", "axis"], ["s"]),
            helper.make_node("Mul", ["s", "b"], ["y"]),
        ],
        {"a": (2, 5), "b": (3,)},
        {"zero": ints(0), "axis": ints(1)},
        open_sizes=True,
        exact=False,
    ),
    "triangle": form("Trilu", (3, 4), constants={"k": np.array(1, np.int64)}, upper=0),
    # Reductions
    **{
        f"{name} of some": form(name, (2, 3, 4), opset=18, constants={"axes": ints(0, -1)}, keepdims=k)
        for name in ("ReduceSum", "ReduceMean")
        for k in (0, 1)
    },
    "mean of all": form("ReduceMean", (2, 3, 4), keepdims=0),
    "mean of an axis": form("ReduceMean", (2, 3, 4), axes=[1], keepdims=0),
    "sum of nothing": form("ReduceSum", (2, 3), constants={"axes": ints()}, noop_with_empty_axes=1),
    "logsumexp": form("ReduceLogSumExp", (2, 3, 4), axes=[1], exact=False),
    "global average": form("GlobalAveragePool", (2, 3, 4, 5)),
    **{f"{name} {axis}": form(name, (2, 3, 4), axis=axis) for name in ("Softmax", "LogSoftmax") for axis in (1, -1)},
    # Indexing
    "gather rows": form("Gather", (5, 3), constants={"i": ints(4, 0, 2)}),
    "gather rows twice": form("Gather", (5, 3), constants={"i": ints(4, 0, 4, 4)}, axis=0),
    "gather columns twice": form("Gather", (3, 5, 2), constants={"i": np.array([[1, -1], [1, 2]])}, axis=1),
    "gather one": form("Gather", (3, 5), constants={"i": np.array(-2)}, axis=1),
    "gather one often": form("Gather", (3, 5, 2), constants={"i": ints(*[1] * 20, 0)}, axis=1),
    "look up computed rows": Form(
        [
            helper.make_node("Cast", ["k"], ["i"], to=7),
            helper.make_node("Gather", ["a", "i"], ["y"], axis=0),
        ],
        {"a": (5, 3)},
        {"k": np.array([[1, 1, 4], [0, 1, 2]], np.float32)},
    ),
    "gather elements": form("GatherElements", (3, 4), constants={"i": np.array([[1, 1, 0, 2]])}),
    "gather tuples": form("GatherND", (3, 4, 2), constants={"i": np.array([[1, 1], [0, -1], [1, 1]])}),
    "gather tuples in batches": form(
        "GatherND", (2, 4, 3), constants={"i": np.array([[[1], [1]], [[0], [3]]])}, batch_dims=1
    ),
    "scatter elements": form(
        "ScatterElements", (3, 4), (1, 4), inputs=["a", "i", "b"], constants={"i": np.array([[1, 2, 0, 2]])}
    ),
    "scatter tuples": form("ScatterND", (3, 4), (2, 4), inputs=["a", "i", "b"], constants={"i": np.array([[2], [0]])}),
    "largest": form("TopK", (3, 6), constants={"k": ints(2)}, outputs=["y", "places"]),
    # Convolutions and pools
    "conv of a line": conv((2, 4, 9), (6, 4, 3), strides=[2], pads=[2, 1]),
    "conv of a line in groups": conv((2, 4, 9), (6, 2, 3), group=2, pads=[1, 1]),
    "conv of a line, dilated, in groups": conv((2, 4, 9), (6, 2, 3), group=2, dilations=[2], strides=[2]),
    "depthwise conv of a line": conv((2, 4, 9), (4, 1, 5), group=4, pads=[2, 2], bias=False),
    "conv of a plane": conv((2, 3, 6, 7), (5, 3, 3, 2), strides=[2, 3], pads=[1, 0, 0, 1]),
    "conv of a plane in groups": conv((2, 4, 6, 7), (6, 2, 3, 2), group=2, strides=[1, 2]),
    "conv of a plane, dilated in its last axis": conv((2, 3, 7, 8), (5, 3, 2, 3), dilations=[1, 2], pads=[0, 2, 0, 2]),
    "conv of a plane, dilated in its first axis": conv((2, 3, 7, 8), (5, 3, 2, 3), dilations=[2, 1], strides=[2, 1]),
    "conv that leaves rows over": conv((2, 3, 8, 9), (4, 3, 2, 2), strides=[3, 4]),
    "conv padded beyond its kernel": conv((2, 3, 3, 3), (4, 3, 2, 2), pads=[3, 2, 3, 4]),
    "conv of a body": conv((2, 3, 4, 5, 4), (4, 3, 2, 3, 2), strides=[1, 2, 2], pads=[1, 0, 1, 0, 1, 0]),
    "conv of a body in groups": conv((2, 4, 4, 5, 4), (4, 2, 2, 3, 2), group=2, dilations=[1, 2, 1]),
    "depthwise conv of a body": conv((2, 3, 4, 4, 4), (6, 1, 2, 2, 2), group=3, strides=[2, 2, 2]),
    **{
        f"average pool {number}": form("AveragePool", shape, opset=19, **attributes)
        for number, (shape, attributes) in enumerate(
            [
                ((2, 3, 6, 6), {"kernel_shape": [2, 3], "strides": [2, 3]}),
                ((2, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
                ((2, 3, 7), {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "count_include_pad": 1}),
                ((2, 2, 4, 5, 6), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
                ((2, 2, 4, 4, 6), {"kernel_shape": [2, 2, 3], "strides": [2, 2, 3]}),
            ]
        )
    },
    **{
        f"max pool {number}": form("MaxPool", shape, outputs=["y", "places"], **attributes)
        for number, (shape, attributes) in enumerate(
            [
                ((2, 3, 6, 6), {"kernel_shape": [2, 3], "strides": [2, 3]}),
                ((2, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
                ((2, 3, 7), {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
                ((2, 2, 4, 5, 6), {"kernel_shape": [2, 2, 3]}),
            ]
        )
    },
    # Normalisations
    "layer norm": form("LayerNormalization", (2, 3, 4), (3, 4), (3, 4), axis=1, outputs=["y", "m", "d"]),
    "layer norm without a bias": form("LayerNormalization", (2, 3, 4), (4,), outputs=["y", "m", "d"]),
    **{f"batch norm of rank {len(shape)}": batch_norm(shape) for shape in ((5, 3), (2, 3, 4), (2, 3, 4, 5))},
}


def forward_of(this: Form) -> onnx.ModelProto:
    """loss = sum(y r), everything a graph input but constants."""
    opsets = [helper.make_opsetid("", this.opset), helper.make_opsetid("com.microsoft", 1)]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in this.constants.items()]
    lengths = {name: ["?"] * len(shape) if this.open_sizes else shape for name, shape in this.shapes.items()}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in lengths.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    alone = helper.make_graph(list(this.nodes), "form", inputs, [y], constants)
    result = inference_session(helper.make_model(alone, opset_imports=opsets, ir_version=8), threads=1)
    (values,) = result.run(["y"], arrays_of(this))
    nodes = [
        *this.nodes,
        helper.make_node("Mul", ["y", "r"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["loss"], keepdims=0),
    ]
    r = numpy_helper.from_array(random(values.shape, seed=99), "r")
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "form", inputs, [loss], [*constants, r])
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def arrays_of(this: Form) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(random(shape, seed=seed)) for seed, (name, shape) in enumerate(this.shapes.items())}


def error_of(this: Form, *, block: int, single: bool, planted: float = 1.0) -> float:
    """Largest difference of a directional derivative, relative to the norm of its gradient."""
    forward, arrays = forward_of(this), arrays_of(this)
    names = sorted(this.shapes)
    built = build_gradient_graph(forward, loss="loss", weights=names, outputs=[], engine="plain", single=single)
    session = inference_session(make_faster(built, block=block, engine="plain"), threads=1)
    made = dict(zip(names, session.run([gradient_name(name) for name in names], arrays), strict=True))
    if this.exact:
        evaluator = ReferenceEvaluator(in_double(forward))
        step = 1e-6
    else:
        evaluator = inference_session(forward, threads=1)
        step = 4e-3
    worst = 0.0
    for name in names:
        gradient = made[name].astype(np.float64)
        assert gradient.shape == arrays[name].shape
        for seed in range(3):
            along = np.random.default_rng(seed).standard_normal(gradient.shape) if seed else gradient
            direction = along / (np.linalg.norm(along) or 1.0)
            ends = []
            for sign in (1.0, -1.0):
                moved = {key: array.astype(np.float64) for key, array in arrays.items()}
                moved[name] = moved[name] + sign * step * direction
                kind = np.float64 if this.exact else np.float32
                fed = {key: np.asarray(array, kind) for key, array in moved.items()}
                ends.append(float(np.asarray(evaluator.run(["loss"], fed)[0], np.float64)))
            slope = (ends[0] - ends[1]) / (2 * step)
            size = max(float(np.linalg.norm(gradient)), 1.0)
            worst = max(worst, abs(slope - planted * float(np.sum(gradient * direction))) / size)
    return worst


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_gradient_is_the_slope_of_the_graph(name: str, single: bool) -> None:
    this = FORMS[name]
    tolerance = 1e-5 if this.exact else 3e-3
    assert error_of(this, block=0, single=single) < tolerance


@pytest.mark.skipif(not channel_block(), reason="a machine without blocked kernels")
@pytest.mark.parametrize("name", [name for name in FORMS if "conv" in name or "pool" in name])
def test_windows_have_the_same_slopes_with_blocked_kernels(name: str) -> None:
    this = FORMS[name]
    assert error_of(this, block=channel_block(), single=False) < (1e-5 if this.exact else 3e-3)


@pytest.mark.parametrize("name", ["Tanh", "conv of a body in groups"])
def test_a_wrong_gradient_would_be_noticed(name: str) -> None:
    assert error_of(FORMS[name], block=0, single=False, planted=1.001) > 1e-4
