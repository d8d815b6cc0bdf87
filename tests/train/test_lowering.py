from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.engine import available
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.lowering import LOWERINGS
from tests.train.graphs import Array, model_of, random
from tests.train.oracle import gradient_error, mean_square_to

pytestmark = pytest.mark.skipif(not available(), reason="needs the training build of onnxruntime")

MSE = Loss(Task.MSE)


def around(
    nodes: Sequence[onnx.NodeProto], *, more: dict[str, Array] | None = None, opset: int = 17
) -> onnx.ModelProto:
    """Conv from ``x`` to ``h`` [N, 4, 6, 6], the nodes from ``h`` to ``y``, then flattening and a linear layer."""
    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1], name="conv"),
            *nodes,
            helper.make_node("Flatten", ["y"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "v"], ["out"], name="linear"),
        ],
        inputs={"x": ["N", 2, 6, 6]},
        outputs=["out"],
        weights={"w": random([4, 2, 3, 3], seed=1), "b": random([4], seed=2), **(more or {})},
        opset=opset,
    )


def error_of(model: onnx.ModelProto, *, width: int, entries: int = 12, planted: float = 1.0) -> float:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.initializer.append(onnx.numpy_helper.from_array(random([width, 3], seed=3, scale=0.3), "v"))
    target = random([3, 3], seed=9)
    return gradient_error(
        whole,
        loss=MSE,
        inputs={"x": random([3, 2, 6, 6], seed=8)},
        labels=target,
        oracle=mean_square_to(target),
        entries=entries,
        planted=planted,
    )


def one(operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> onnx.NodeProto:
    names = ["y", *(f"y{index}" for index in range(1, outputs))]
    return helper.make_node(operator, ["h", *inputs], names, name="node", **attributes)


def numbers(*values: float) -> Array:
    return np.array(values, np.float32)


ACTIVATIONS = {
    "Abs": one("Abs"),
    "Celu": one("Celu", alpha=0.7),
    "Elu": one("Elu", alpha=0.5),
    "Exp": one("Exp"),
    "HardSigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": one("HardSwish"),
    "LeakyRelu": one("LeakyRelu", alpha=0.1),
    "Neg": one("Neg"),
    "Relu": one("Relu"),
    "Selu": one("Selu"),
    "Sigmoid": one("Sigmoid"),
    "Softplus": one("Softplus"),
    "Softsign": one("Softsign"),
    "Tanh": one("Tanh"),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gradient_through_activation_matches_finite_differences(name: str) -> None:
    assert error_of(around([ACTIVATIONS[name]]), width=144) < 2e-4


@pytest.mark.parametrize("name", ["Mish"])
def test_gradient_through_activation_of_opset_18_matches_finite_differences(name: str) -> None:
    # The reference implementation of Mish computes with single numbers only, so its formula stands here.
    spelled = [
        helper.make_node("Softplus", ["h"], ["p"]),
        helper.make_node("Tanh", ["p"], ["t"]),
        helper.make_node("Mul", ["h", "t"], ["y"]),
    ]
    assert error_of(around(spelled), width=144) < 2e-4
    space = prepare(_finished(around([one(name)], opset=18), 144), loss=MSE, batch_size=3)
    assert name not in {node.op_type for node in space.forward.graph.node}


def _finished(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    model.graph.initializer.append(onnx.numpy_helper.from_array(random([width, 3], seed=3, scale=0.3), "v"))
    return model


@pytest.mark.parametrize("shape", [(4, 1, 1), (1,), (4, 6, 6)])
def test_prelu_trains_its_slope_of_any_broadcast_shape(shape: tuple[int, ...]) -> None:
    model = around([one("PRelu", "slope")], more={"slope": random(shape, seed=5)})
    assert error_of(model, width=144) < 2e-4
    assert "slope" in prepare(_finished(model, 144), loss=MSE, batch_size=3).weights


@pytest.mark.parametrize(
    ("low", "high"), [(numbers(-0.5)[0], numbers(0.8)[0]), (numbers(0.0)[0], None), (None, numbers(0.6)[0])]
)
def test_gradient_through_clip_matches_finite_differences(low: Array | None, high: Array | None) -> None:
    more = {name: np.asarray(value) for name, value in (("low", low), ("high", high)) if value is not None}
    node = one("Clip", "" if low is None else "low", *([] if high is None else ["high"]))
    assert error_of(around([node], more=more), width=144) < 2e-4


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
    made = prepare(_finished(around(nodes), 36), loss=MSE, batch_size=3).forward
    order = [node.op_type for node in made.graph.node]
    assert order.index("MaxPool") < order.index("Relu")


def test_pool_stays_behind_relu_that_something_else_reads() -> None:
    nodes = [
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["p", "r"], ["y"]),
    ]
    assert error_of(around(nodes), width=144) < 2e-4
    made = prepare(_finished(around(nodes), 144), loss=MSE, batch_size=3).forward
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
    artifacts = prepare(_finished(model, 144), loss=MSE, batch_size=3)
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


@pytest.mark.parametrize("operator", ["Sum", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_sum_and_mean_of_several_inputs_are_additions(operator: str, count: int) -> None:
    nodes = [
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Exp", ["t"], ["e"]),
        helper.make_node(operator, ["t", "e", "h"][:count], ["y"]),
    ]
    assert error_of(around(nodes), width=144) < 2e-4


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
        prepare(_finished(around(nodes, more=more), 144), loss=MSE, batch_size=3)


def test_every_entry_of_the_table_has_a_test_here() -> None:
    tested = {*ACTIVATIONS, "Mish", "PRelu", "GlobalMaxPool", "MaxPool", "BatchNormalization", "Sum", "Mean"}
    assert set(LOWERINGS) <= tested | {"LayerNormalization"}
