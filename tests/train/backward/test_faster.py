"""The rewritten gradient graph gives the gradients of the unrewritten one, and those of the mathematics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxadmm.train.backward.blocks import BLOCKED_DOMAIN, channel_block
from onnxadmm.train.backward.faster import make_faster
from onnxadmm.train.backward.gradient import build_gradient_graph, gradient_name
from onnxadmm.train.engine import Engine, inference_session

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Convolution:
    inputs: int = 16
    outputs: int = 32
    batch: int = 16
    size: tuple[int, int] = (7, 6)
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1


DEPTHWISE = Convolution(inputs=32, group=32)
CASES = {
    "plain": Convolution(),
    "no padding": Convolution(pads=(0, 0, 0, 0)),
    "uneven padding": Convolution(pads=(0, 2, 1, 0), kernel=(3, 4)),
    "padding beyond the kernel": Convolution(pads=(3, 3, 3, 3)),
    "pointwise": Convolution(kernel=(1, 1), pads=(0, 0, 0, 0)),
    "pointwise with stride": Convolution(kernel=(1, 1), pads=(0, 0, 0, 0), strides=(2, 2), size=(8, 7)),
    "even kernel": Convolution(kernel=(2, 2), pads=(0, 0, 1, 1)),
    "long kernel": Convolution(kernel=(1, 7), pads=(0, 3, 0, 3)),
    "stride 2": Convolution(strides=(2, 2), size=(8, 8)),
    "uneven strides": Convolution(strides=(2, 3), size=(9, 11)),
    "stride that leaves rows over": Convolution(strides=(3, 2), size=(9, 8), pads=(0, 0, 0, 0)),
    "dilation": Convolution(dilations=(2, 1), pads=(2, 1, 2, 1)),
    "dilation and stride": Convolution(dilations=(2, 2), strides=(2, 1), size=(9, 9), pads=(2, 2, 2, 2)),
    "image": Convolution(inputs=3),
    "image with stride": Convolution(inputs=3, strides=(2, 2), kernel=(5, 5), pads=(2, 2, 2, 2), size=(10, 11)),
    "batch of no whole block": Convolution(batch=13),
    "batch far below a block": Convolution(batch=6),
    "outputs of no whole block": Convolution(outputs=20),
    "inputs of no whole block": Convolution(inputs=24),
    "odd channels": Convolution(inputs=13, outputs=27),
    "odd channels, two blocks, pointwise": Convolution(inputs=29, outputs=50, kernel=(1, 1), pads=(0, 0, 0, 0)),
    "few channels": Convolution(inputs=5, outputs=7),
    "depthwise, channels of no whole block": Convolution(inputs=27, outputs=27, group=27),
    "depthwise with stride, channels of no whole block": replace(
        DEPTHWISE, inputs=24, outputs=24, group=24, strides=(2, 2), size=(8, 8)
    ),
    "tiny picture": Convolution(size=(2, 2), inputs=32),
    "groups": Convolution(inputs=32, group=2),
    "depthwise": DEPTHWISE,
    "depthwise with stride": replace(DEPTHWISE, strides=(2, 2), size=(8, 8)),
    "depthwise with uneven strides": replace(DEPTHWISE, strides=(1, 3), size=(5, 9), kernel=(3, 5), pads=(1, 2, 1, 2)),
    "depthwise that leaves rows over": replace(DEPTHWISE, strides=(3, 3), size=(9, 8), pads=(0, 0, 0, 0)),
    "depthwise with dilation": replace(DEPTHWISE, dilations=(2, 2), pads=(2, 2, 2, 2)),
    "depthwise, batch of no whole block": replace(DEPTHWISE, batch=3),
    "depthwise multiplier": Convolution(inputs=16, outputs=32, group=16),
}


def forward_of(case: Convolution) -> onnx.ModelProto:
    """loss = sum(r * conv(x, w, b)), every operand a graph input: each gradient is a linear map of r."""
    w = [case.outputs, case.inputs // case.group, *case.kernel]
    attributes: dict[str, Any] = {
        "strides": case.strides,
        "pads": case.pads,
        "dilations": case.dilations,
        "group": case.group,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", kernel_shape=case.kernel, **attributes),
        helper.make_node("Mul", ["y", "r"], ["product"], name="product"),
        helper.make_node("ReduceSum", ["product"], ["loss"], name="loss", keepdims=0),
    ]
    shapes = {"x": [case.batch, case.inputs, *case.size], "w": w, "b": [case.outputs]}
    probe = helper.make_graph(
        nodes[:1],
        "probe",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(probe, opset_imports=[helper.make_opsetid("", 17)]))
    shapes["r"] = [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim]
    return model_of(nodes, shapes, ["loss"])


def model_of(nodes: Sequence[onnx.NodeProto], shapes: dict[str, list[int]], outputs: Sequence[str]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def gradients_of(forward: onnx.ModelProto, weights: Sequence[str], engine: Engine) -> onnx.ModelProto:
    return build_gradient_graph(forward, loss="loss", weights=weights, outputs=[], engine=engine)


def unrewritten(model: onnx.ModelProto, engine: Engine) -> onnx.ModelProto:
    """What runs of a gradient graph without being made faster: our own differentiation leaves nodes open."""
    return model if engine == "training" else make_faster(model, block=0, engine=engine)


def numbers_for(model: onnx.ModelProto, seed: int = 0) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    return {
        value.name: generator.standard_normal([dim.dim_value for dim in value.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for value in model.graph.input
    }


def run(model: onnx.ModelProto, numbers: dict[str, Floats]) -> dict[str, Floats]:
    names = [output.name for output in model.graph.output]
    results = inference_session(model, threads=1).run(names, numbers)
    return dict(zip(names, results, strict=True))


def assert_same(one: dict[str, Floats], other: dict[str, Floats], tolerance: float = 2e-5) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert other[name].shape == array.shape, name
        scale = max(float(np.abs(array).max()), 1e-6)
        assert float(np.abs(other[name] - array).max()) <= tolerance * scale, name


def convolve(case: Convolution, x: Doubles, w: Doubles) -> Doubles:
    """The convolution in float64, one kernel entry after the other."""
    top, left, bottom, right = case.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (sh, sw), (dh, dw), (kh, kw) = case.strides, case.dilations, case.kernel
    ho = (padded.shape[2] - (kh - 1) * dh - 1) // sh + 1
    wo = (padded.shape[3] - (kw - 1) * dw - 1) // sw + 1
    each, made = case.inputs // case.group, case.outputs // case.group
    y = np.zeros((case.batch, case.outputs, ho, wo))
    for i in range(kh):
        for j in range(kw):
            view = padded[:, :, i * dh : i * dh + (ho - 1) * sh + 1 : sh, j * dw : j * dw + (wo - 1) * sw + 1 : sw]
            for k in range(case.group):
                part = np.einsum(
                    "nchw,oc->nohw", view[:, k * each : (k + 1) * each], w[k * made : (k + 1) * made, :, i, j]
                )
                y[:, k * made : (k + 1) * made] += part
    return y


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_gradients_of_a_convolution_are_those_of_the_unrewritten_graph_and_of_differences(
    case: Convolution, engine: Engine
) -> None:
    model = gradients_of(forward_of(case), ["b", "w", "x"], engine)
    numbers = numbers_for(model)
    plain, fast = (
        run(unrewritten(model, engine), numbers),
        run(make_faster(model, block=channel_block(), engine=engine), numbers),
    )
    assert_same(plain, fast)
    # The loss is linear in x and in w: its differences along a direction are exact, whatever their length.
    generator = np.random.default_rng(5)
    x, w, r = (numbers[name].astype(np.float64) for name in ("x", "w", "r"))
    dx, dw, db = generator.standard_normal(x.shape), generator.standard_normal(w.shape), np.ones(case.outputs)
    for name, direction, slope in (
        ("x", dx, np.sum(r * convolve(case, dx, w))),
        ("w", dw, np.sum(r * convolve(case, x, dw))),
        ("b", db, np.sum(r)),
    ):
        gradient = fast[gradient_name(name)].astype(np.float64)
        spread = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(np.sum(gradient * direction) - slope) <= 1e-5 * spread, name


@pytest.mark.skipif(not channel_block(), reason="a machine without blocked kernels")
@pytest.mark.parametrize(
    "name", ["plain", "pointwise", "tiny picture", "odd channels", "depthwise", "depthwise with stride"]
)
def test_no_gradient_kernel_of_the_engine_is_left_where_blocked_ones_fit(name: str, engine: Engine) -> None:
    fast = make_faster(
        gradients_of(forward_of(CASES[name]), ["b", "w", "x"], engine), block=channel_block(), engine=engine
    )
    assert all(node.op_type != "ConvGrad" for node in fast.graph.node)
    assert sum(node.op_type == "Conv" and node.domain == BLOCKED_DOMAIN for node in fast.graph.node) == 3


@pytest.mark.parametrize("name", ["plain", "pointwise", "tiny picture", "odd channels", "depthwise"])
def test_no_reshape_reads_a_reshape(name: str, engine: Engine) -> None:
    # Newer onnxruntimes fuse two of them into a node that runs late, and half as much memory again was held until then.
    written = gradients_of(forward_of(CASES[name]), ["b", "w", "x"], engine)
    fast = make_faster(written, block=channel_block() or 16, engine=engine)
    reshaped = {node.output[0] for node in fast.graph.node if node.op_type == "Reshape"}
    assert reshaped
    assert not [node.name for node in fast.graph.node if node.op_type == "Reshape" and node.input[0] in reshaped]


def chain(nodes: Sequence[onnx.NodeProto], last: str, **more: list[int]) -> onnx.ModelProto:
    """Conv from ``x`` [16, 16, 6, 6] to ``h``, the nodes, then a convolution and a sum of squares."""
    before = helper.make_node("Conv", ["x", "w", "b"], ["h"], name="first", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    after = [
        helper.make_node("Conv", [last, "v"], ["z"], name="second", kernel_shape=[3, 3]),
        helper.make_node("Mul", ["z", "z"], ["square"], name="square"),
        helper.make_node("ReduceMean", ["square"], ["loss"], name="loss", keepdims=0),
    ]
    shapes = {"x": [16, 16, 6, 6], "w": [16, 16, 3, 3], "b": [16], "v": [16, 16, 3, 3], **more}
    return model_of([before, *nodes, *after], shapes, ["loss"])


BETWEEN = {
    "relu": [helper.make_node("Relu", ["h"], ["a"], name="relu")],
    "residual": [
        helper.make_node("Add", ["h", "x"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["a"], name="relu"),
    ],
    "value used in both layouts": [
        helper.make_node("Relu", ["h"], ["c"], name="relu"),
        helper.make_node("ReduceMean", ["c"], ["m"], name="mean", axes=[2, 3]),
        helper.make_node("Mul", ["c", "m"], ["a"], name="scale"),
    ],
    "sigmoid gate": [
        helper.make_node("Sigmoid", ["h"], ["g"], name="sigmoid"),
        helper.make_node("Mul", ["h", "g"], ["a"], name="gate"),
    ],
    "clip": [
        helper.make_node("Constant", [], ["low"], value_float=-0.5),
        helper.make_node("Constant", [], ["high"], value_float=1.0),
        helper.make_node("Clip", ["h", "low", "high"], ["a"], name="clip"),
    ],
    "tiling pool": [
        helper.make_node("MaxPool", ["h"], ["p", "places"], name="pool", kernel_shape=[2, 1], strides=[2, 1]),
        helper.make_node("Relu", ["p"], ["a"], name="relu"),
    ],
    "overlapping pool": [
        helper.make_node("MaxPool", ["h"], ["p", "places"], name="pool", kernel_shape=[2, 2]),
        helper.make_node("Relu", ["p"], ["a"], name="relu"),
    ],
}


@pytest.mark.parametrize("nodes", BETWEEN.values(), ids=BETWEEN.keys())
def test_what_stands_between_convolutions_gives_the_same_gradients_in_either_layout(
    nodes: Sequence[onnx.NodeProto], engine: Engine
) -> None:
    model = gradients_of(chain(nodes, "a"), ["b", "v", "w", "x"], engine)
    numbers = numbers_for(model)
    assert_same(
        run(unrewritten(model, engine), numbers), run(make_faster(model, block=channel_block(), engine=engine), numbers)
    )


@pytest.mark.parametrize("nodes", BETWEEN.values(), ids=BETWEEN.keys())
def test_a_forward_graph_alone_gives_the_same_outputs(nodes: Sequence[onnx.NodeProto], engine: Engine) -> None:
    model = chain(nodes, "a")
    numbers = numbers_for(model)
    assert_same(
        run(unrewritten(model, engine), numbers), run(make_faster(model, block=channel_block(), engine=engine), numbers)
    )


@pytest.mark.skipif(not channel_block(), reason="a machine without blocked kernels")
@pytest.mark.parametrize("channels", [16, 20])
def test_a_tiling_pool_shares_its_gradient_among_equal_maxima(channels: int, engine: Engine) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "places"], name="pool", kernel_shape=[2, 3], strides=[2, 3]),
        helper.make_node("Mul", ["p", "r"], ["product"], name="product"),
        helper.make_node("ReduceSum", ["product"], ["loss"], name="loss", keepdims=0),
    ]
    shapes = {"x": [2, channels, 4, 6], "r": [2, channels, 2, 2]}
    model = gradients_of(model_of(nodes, shapes, ["loss"]), ["x"], engine)
    numbers = numbers_for(model)
    x = numbers["x"] = np.round(numbers["x"])  # few values: most windows have several maxima
    windows = x.reshape(2, channels, 2, 2, 2, 3)
    most = windows == windows.max(axis=(3, 5), keepdims=True)
    expected = most * (numbers["r"] / most.sum(axis=(3, 5)))[:, :, :, None, :, None]
    fast = make_faster(model, block=channel_block(), engine=engine)
    assert all(node.op_type != "MaxPoolGrad" for node in fast.graph.node)
    assert_same({"x_grad": expected.reshape(x.shape)}, {"x_grad": run(fast, numbers)["x_grad"]})


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_gradient_of_a_layer_normalisation_is_that_of_the_unrewritten_graph_and_of_differences(
    axis: int, engine: Engine
) -> None:
    shape = [4, 5, 6]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s", "b"], ["n", "m", "i"], name="norm", axis=axis),
        helper.make_node("Mul", ["n", "r"], ["product"], name="product"),
        helper.make_node("ReduceSum", ["product"], ["loss"], name="loss", keepdims=0),
    ]
    tail = shape[axis:]
    model = gradients_of(
        model_of(nodes, {"x": shape, "s": tail, "b": tail, "r": shape}, ["loss"]), ["b", "s", "x"], engine
    )
    numbers = numbers_for(model)
    fast = make_faster(model, block=channel_block(), engine=engine)
    assert all(node.op_type != "LayerNormalizationGrad" for node in fast.graph.node)
    result = run(fast, numbers)
    assert_same(run(unrewritten(model, engine), numbers), result)

    def loss(x: Doubles) -> float:
        axes = tuple(range(axis % 3, 3))
        deviation = np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
        normal = (x - x.mean(axis=axes, keepdims=True)) / deviation
        return float(np.sum(numbers["r"] * (normal * numbers["s"] + numbers["b"])))

    x, d = numbers["x"].astype(np.float64), np.random.default_rng(1).standard_normal(shape)
    slope = (loss(x + 1e-5 * d) - loss(x - 1e-5 * d)) / 2e-5
    assert float(np.sum(result["x_grad"] * d)) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("block", [0, 16])
def test_the_mask_of_relu_is_exact_at_zero_and_beside_it(block: int, engine: Engine) -> None:
    if block and block != channel_block():
        pytest.skip("a machine with blocks of another size")
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Mul", ["a", "r"], ["p"], name="product"),
        helper.make_node("ReduceSum", ["p"], ["loss"], name="loss", keepdims=0),
    ]
    model = gradients_of(model_of(nodes, {"x": [6], "r": [6]}, ["loss"]), ["x"], engine)
    x = np.array([-1.0, -0.0, 0.0, 1e-30, 1.0, 1e30], np.float32)
    fast = run(make_faster(model, block=block, engine=engine), {"x": x, "r": np.full(6, 3.0, np.float32)})
    assert fast["x_grad"].tolist() == [0.0, 0.0, 0.0, 3.0, 3.0, 3.0]


def test_the_given_graph_stays_as_it_was(engine: Engine) -> None:
    model = gradients_of(forward_of(CASES["plain"]), ["w"], engine)
    before = model.SerializeToString(deterministic=True)
    make_faster(model, block=channel_block(), engine=engine)
    assert model.SerializeToString(deterministic=True) == before
