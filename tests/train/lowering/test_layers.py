from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Task
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, DoubleGraph, model_of, random
from tests.train.lowering.lowered import MSE, around, error_of, finished, one
from tests.train.oracle import gradient_error, mean_square_to

pytestmark = pytest.mark.usefixtures("engine")


POOLS = {
    "AveragePool": (one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]), 36),
    "AveragePool padded": (one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 36),
    "AveragePool counting": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        36,
    ),
    "GlobalAveragePool": (one("GlobalAveragePool"), 4),
    "GlobalMaxPool": (one("GlobalMaxPool"), 4),
    "MaxPool": (one("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), 36),
    "MaxPool overlapping": (one("MaxPool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]), 144),
    "MaxPool same": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), 36),
}


@pytest.mark.parametrize("name", sorted(POOLS))
def test_gradient_through_pooling_matches_finite_differences(name: str) -> None:
    node, width = POOLS[name]
    assert error_of(around([node]), width=width) < 2e-4


def test_pool_moves_before_relu_and_gradients_stay_right() -> None:
    nodes = [
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    assert error_of(around(nodes), width=36) < 2e-4
    made = prepare(finished(around(nodes), 36), loss=MSE, batch_size=3).forward
    order = [node.op_type for node in made.graph.node]
    assert order.index("MaxPool") < order.index("Relu")


def test_pool_stays_behind_relu_that_something_else_reads() -> None:
    nodes = [
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["p", "r"], ["y"]),
    ]
    assert error_of(around(nodes), width=144) < 2e-4
    made = prepare(finished(around(nodes), 144), loss=MSE, batch_size=3).forward
    order = [node.op_type for node in made.graph.node]
    assert order.index("Relu") < order.index("MaxPool")


def test_indices_in_column_major_order_are_dropped_when_nobody_reads_them() -> None:
    node = one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], storage_order=1)
    assert error_of(around([node]), width=36) < 2e-4


STATISTICS: dict[str, Array] = {
    "scale": random([4], seed=11),
    "shift": random([4], seed=12),
    "mean": random([4], seed=13),
    "var": np.abs(random([4], seed=14)) + 0.5,
}


def batch_normalisation(source: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, "scale", "shift", "mean", "var"], ["y"], epsilon=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalization_behind_conv_trains_scale_and_bias_inside_the_conv(bias: bool) -> None:
    model = around([batch_normalisation("h")], more=STATISTICS)
    if not bias:
        del model.graph.node[0].input[2]
    assert error_of(model, width=144) < 2e-4
    artifacts = prepare(finished(model, 144), loss=MSE, batch_size=3)
    assert {"scale", "shift", "w"} <= set(artifacts.weights)
    assert not {"mean", "var"} & set(artifacts.weights)
    wide = [node for node in artifacts.forward.graph.node if node.op_type in ("Mul", "Add") and "h" in node.input]
    assert not wide


def test_batch_normalization_elsewhere_becomes_mul_and_add() -> None:
    nodes = [helper.make_node("Relu", ["h"], ["r"]), batch_normalisation("r")]
    assert error_of(around(nodes, more=STATISTICS), width=144) < 2e-4


def test_batch_normalization_of_a_table_is_lowered_too() -> None:
    model = model_of(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
            helper.make_node("BatchNormalization", ["h", "scale", "shift", "mean", "var"], ["out"]),
        ],
        inputs={"x": ["N", 5]},
        outputs=["out"],
        weights={"w": random([4, 5]), **STATISTICS},
    )
    target = random([3, 4], seed=1)
    error = gradient_error(
        model, loss=MSE, inputs={"x": random([3, 5], seed=2)}, labels=target, oracle=mean_square_to(target)
    )
    assert error < 2e-4


def test_wrong_statistics_would_be_noticed() -> None:
    assert error_of(around([batch_normalisation("h")], more=STATISTICS), width=144, planted=0.98) > 1e-2


def test_layer_normalization_gets_its_hidden_outputs() -> None:
    model = around(
        [one("LayerNormalization", "scale", "shift", axis=-1)],
        more={"scale": random([6], seed=4), "shift": random([6], seed=5)},
    )
    assert error_of(model, width=144) < 5e-4


def test_layer_normalization_without_bias_trains() -> None:
    model = around([one("LayerNormalization", "scale", axis=-1)], more={"scale": random([6], seed=4)})
    assert error_of(model, width=144) < 5e-4


CONVOLUTIONS: dict[str, tuple[list[int], dict[str, Any], int]] = {
    "grouped": ([4, 2, 3, 3], {"group": 2, "pads": [1, 1, 1, 1]}, 144),
    "depthwise": ([4, 1, 3, 3], {"group": 4, "pads": [1, 1, 1, 1]}, 144),
    "strided": ([5, 4, 3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 45),
    "dilated": ([3, 4, 3, 3], {"dilations": [2, 2], "pads": [2, 2, 2, 2]}, 108),
    "same upper": ([3, 4, 3, 3], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 27),
    "same lower": ([3, 4, 3, 3], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, 27),
    "valid": ([3, 4, 3, 3], {"auto_pad": "VALID"}, 48),
    "even kernel": ([3, 4, 2, 2], {"auto_pad": "SAME_UPPER"}, 108),
}


@pytest.mark.parametrize("name", sorted(CONVOLUTIONS))
def test_gradient_of_convolution_matches_finite_differences(name: str) -> None:
    shape, attributes, width = CONVOLUTIONS[name]
    model = around([one("Conv", "k", **attributes)], more={"k": random(shape, seed=6)})
    assert error_of(model, width=width) < 2e-4


def test_statistics_computed_in_the_graph_are_refused_by_name() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["h"], ["mean"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("BatchNormalization", ["h", "scale", "shift", "mean", "var"], ["y"], name="norm"),
    ]
    more = {name: array for name, array in STATISTICS.items() if name != "mean"}
    with pytest.raises(NotTrainableError, match=r"BatchNormalization \(norm\)"):
        prepare(finished(around(nodes, more=more), 144), loss=MSE, batch_size=3)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((3, 4, 4, 4), {"kernel_shape": [2, 2, 2], "strides": [1, 1, 1]}),
        ((3, 4, 4, 4), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 1], "pads": [0, 1, 1, 0, 1, 1]}),
        (
            (3, 4, 4, 4),
            {"kernel_shape": [3, 3, 3], "strides": [2, 2, 1], "pads": [1, 1, 1, 1, 1, 1], "count_include_pad": 1},
        ),
        ((3, 6, 6), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ((3, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}),
        ((3, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}),
    ],
)
def test_average_pool_that_the_engine_differentiates_wrongly_is_a_convolution(
    shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    rank = len(attributes["kernel_shape"])
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["h"]),
            helper.make_node("AveragePool", ["h"], ["out"], **attributes),
        ],
        inputs={"x": ["N", *shape]},
        outputs=["out"],
        weights={"w": random([2, shape[0], *[1] * rank], seed=1)},
        opset=19,
    )
    x = {"x": random([2, *shape], seed=2)}
    with OrtTrainer(model, loss=MSE, batch_size=2) as trainer:
        target = random(trainer.artifacts.logits_shape, seed=3)
        assert "AveragePool" not in {node.op_type for node in trainer.artifacts.forward.graph.node}
        trainer.backward(Batch(x, target, None, 2))
        plain = Predictor(model, task=Task.MSE).logits(x)
        np.testing.assert_allclose(trainer.logits, plain, atol=1e-6)
    # The mean square is a parabola in each entry of a linear network: any step gives its exact slope.
    assert _slope_error(model, x, target) < 1e-3


def _slope_error(model: onnx.ModelProto, x: dict[str, Array], target: Array) -> float:
    """Largest difference of gradients and central differences of the plain session's outputs, relative."""

    def value(weight: Array) -> float:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
        logits = Predictor(copy, task=Task.MSE).logits(x).astype(np.float64)
        return float(((logits - target) ** 2).mean())

    with OrtTrainer(model, loss=MSE, batch_size=2) as trainer:
        trainer.backward(Batch(x, target, None, 2))
        weight, gradient = trainer.weights["w"].copy(), trainer.gradients["w"].copy()
    slopes = np.zeros(weight.size)
    for index in range(weight.size):
        step = np.zeros(weight.shape, np.float32)
        step.reshape(-1)[index] = 0.5
        slopes[index] = value(weight + step) - value(weight - step)
    return float(np.abs(slopes - gradient.ravel()).max() / np.abs(slopes).max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "groups", "attributes"),
    [
        ((4, 16), 2, {"pads": [1, 1], "kernel_shape": [5]}),
        ((4, 33), 4, {"pads": [0, 1], "kernel_shape": [5], "dilations": [2]}),
        ((8, 33), 2, {"kernel_shape": [5], "strides": [2]}),
        ((4, 5, 5), 2, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ((2, 4, 4, 4), 2, {"kernel_shape": [2, 2, 2]}),
        ((4, 4, 4, 4), 4, {"kernel_shape": [3, 3, 3], "strides": [2, 2, 1], "pads": [1, 1, 1, 1, 1, 1]}),
    ],
)
def test_grouped_convolution_of_any_rank_matches_finite_differences(
    shape: tuple[int, ...], groups: int, attributes: dict[str, Any], bias: bool
) -> None:
    weights: dict[str, Array] = {"w": random([shape[0], shape[0] // groups, *attributes["kernel_shape"]], seed=1)}
    if bias:
        weights["b"] = random([shape[0]], seed=4)
    model = model_of(
        [helper.make_node("Conv", ["x", *weights], ["out"], group=groups, **attributes)],
        inputs={"x": ["N", *shape]},
        outputs=["out"],
        weights=weights,
    )
    x = {"x": random([1, *shape], seed=2)}
    target = random(DoubleGraph(model).run(x).shape, seed=3)
    error = gradient_error(model, loss=MSE, inputs=x, labels=target, oracle=mean_square_to(target), entries=100)
    assert error < 1e-4


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 3)])
def test_gemm_trains_a_bias_of_any_broadcast_shape(shape: tuple[int, ...]) -> None:
    bias: Array = np.asarray(random(shape, seed=3))
    model = model_of(
        [helper.make_node("Gemm", ["x", "w", "c"], ["out"], beta=0.5, alpha=2.0)],
        inputs={"x": ["N", 4]},
        outputs=["out"],
        weights={"w": random([4, 3]), "c": bias},
    )
    target = random([3, 3], seed=1)
    error = gradient_error(
        model, loss=MSE, inputs={"x": random([3, 4], seed=2)}, labels=target, oracle=mean_square_to(target)
    )
    assert error < 1e-4


LOW, LOW32 = np.iinfo(np.int64).min, np.iinfo(np.int32).min


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "width"),
    [
        ([-1], [LOW], [3], [-1], 144),
        ([-1], [LOW32], [-1], [-2], 72),
        ([4, 0], [-6, 9], [2, 1], [-2, 3], 24),
        ([5, 1], [0, 3], [3, 1], [-1, 1], 60),
        ([1], [2**31 - 1], [1], [2], 72),
    ],
)
def test_slice_with_steps_of_either_sign_matches_finite_differences(
    starts: list[int], ends: list[int], axes: list[int], steps: list[int], width: int
) -> None:
    names = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    model = around([one("Slice", *names)], more={name: np.array(v, np.int64) for name, v in names.items()})
    assert error_of(model, width=width) < 2e-4


@pytest.mark.parametrize("exponent", [np.array(2, np.int64), np.array(3, np.int32), np.array(2.0, np.float32)])
def test_pow_with_exponents_of_any_type_matches_finite_differences(exponent: Array) -> None:
    assert error_of(around([one("Pow", "exponent")], more={"exponent": exponent}), width=144) < 2e-4


@pytest.mark.parametrize("operator", ["ReduceL2", "ReduceLogSumExp", "ReduceMean"])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions_that_keep_or_drop_their_axes_match_finite_differences(operator: str, keep: int) -> None:
    assert error_of(around([one(operator, axes=[1, 3], keepdims=keep)]), width=6) < 2e-4
