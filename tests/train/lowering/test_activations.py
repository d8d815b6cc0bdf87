import numpy as np
import pytest
from onnx import helper

from onnxadmm.train.artifacts import prepare
from tests.train.graphs import Array, random
from tests.train.lowering.lowered import MSE, around, error_of, finished, numbers, one

pytestmark = pytest.mark.usefixtures("engine")


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
    space = prepare(finished(around([one(name)], opset=18), 144), loss=MSE, batch_size=3)
    assert name not in {node.op_type for node in space.forward.graph.node}


@pytest.mark.parametrize("shape", [(4, 1, 1), (1,), (4, 6, 6)])
def test_prelu_trains_its_slope_of_any_broadcast_shape(shape: tuple[int, ...]) -> None:
    model = around([one("PRelu", "slope")], more={"slope": random(shape, seed=5)})
    assert error_of(model, width=144) < 2e-4
    assert "slope" in prepare(finished(model, 144), loss=MSE, batch_size=3).weights


@pytest.mark.parametrize(
    ("low", "high"), [(numbers(-0.5)[0], numbers(0.8)[0]), (numbers(0.0)[0], None), (None, numbers(0.6)[0])]
)
def test_gradient_through_clip_matches_finite_differences(low: Array | None, high: Array | None) -> None:
    more = {name: np.asarray(value) for name, value in (("low", low), ("high", high)) if value is not None}
    node = one("Clip", "" if low is None else "low", *([] if high is None else ["high"]))
    assert error_of(around([node], more=more), width=144) < 2e-4


@pytest.mark.parametrize("operator", ["Sum", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_sum_and_mean_of_several_inputs_are_additions(operator: str, count: int) -> None:
    nodes = [
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Exp", ["t"], ["e"]),
        helper.make_node(operator, ["t", "e", "h"][:count], ["y"]),
    ]
    assert error_of(around(nodes), width=144) < 2e-4


@pytest.mark.parametrize("operator", ["Gelu", "QuickGelu"])
def test_activations_of_the_runtimes_own_domain_train(operator: str) -> None:
    node = helper.make_node(operator, ["h"], ["y"], domain="com.microsoft")
    model = finished(around([node]), 144)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert {"w", "b", "v"} == set(prepare(model, loss=MSE, batch_size=3).weights)
