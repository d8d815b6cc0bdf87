"""What cannot be trained through is refused by name, or freezes the weights before it."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer
from tests.train.cases import MSE, Case, ints, op
from tests.train.graphs import model_of, random
from tests.train.lowering.test_table import recurrent, resized

pytestmark = pytest.mark.usefixtures("engine")

REFUSED = {
    "Bernoulli": (Case([op("Bernoulli")], (4,)), "which has none"),
    "crop": (resized((1, 1, 2, 2), mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), "cropping"),
    "policy": (resized(sizes=(4, 9, 9), mode="linear", keep_aspect_ratio_policy="not_larger"), "stretch"),
    "diagonal": (Case([op("Einsum", equation="bii->bi")], (3, 3)), "none twice"),
    "long": (recurrent("GRU", steps=129), "at most 128 steps"),
    "activation": (recurrent("RNN", activations=["Affine"]), "Affine"),
    "product": (Case([op("ReduceProd", axes=[1])], (129,)), "at most 128 factors"),
    "power": (Case([op("Pow", "h")], (4,)), "exponent"),
    "scatter": (
        Case(
            [op("ScatterElements", "i", "u", axis=1, reduction="mul")],
            (4,),
            {"i": np.zeros((3, 1), np.int64), "u": random([3, 1])},
            18,
        ),
        "reduction mul",
    ),
    "amounts": (
        Case([op("Cast", outputs=["c"], to=7), helper.make_node("Slice", ["c", "a", "b"], ["p"]),
              helper.make_node("Reshape", ["p", "r"], ["q"]),
              op("Pad", "q", mode="reflect")], (4,), {"a": ints(0, 0), "b": ints(1, 4), "r": ints(4)}),
        "which is computed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_differentiated_is_refused_by_node(name: str) -> None:
    case, words = REFUSED[name]
    with pytest.raises(NotTrainableError, match=rf"\(node\).*{words}"):
        prepare(case.model(), loss=MSE, batch_size=3)


def branches() -> onnx.ModelProto:
    """Two linear layers; one through an operator without gradient, both joined before a third."""
    return model_of(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="left"),
            helper.make_node("Hardmax", ["h"], ["s"], name="odd"),
            helper.make_node("MatMul", ["x", "b"], ["g"], name="right"),
            helper.make_node("Add", ["s", "g"], ["j"], name="join"),
            helper.make_node("MatMul", ["j", "c"], ["y"], name="last"),
        ],
        inputs={"x": ["N", 3]},
        outputs=["y"],
        weights={"a": random([3, 4]), "b": random([3, 4], seed=1), "c": random([4, 2], seed=2)},
    )


def test_weights_before_an_operator_without_gradient_keep_their_values_and_are_listed() -> None:
    with pytest.raises(NotTrainableError, match=r"Hardmax \(odd\)"):
        prepare(branches(), loss=MSE, batch_size=2)
    artifacts = prepare(branches(), loss=MSE, batch_size=2, freeze_untrainable=True)
    assert set(artifacts.weights) == {"b", "c"}
    assert artifacts.untrainable == {"a": "Hardmax (odd)"}
    assert artifacts.frozen == ()


def test_weight_that_also_reaches_the_loss_around_it_is_frozen_whole() -> None:
    model = branches()
    model.graph.node[2].input[1] = "a"
    artifacts = prepare(model, loss=MSE, batch_size=2, freeze_untrainable=True)
    assert set(artifacts.weights) == {"c"}
    assert artifacts.untrainable == {"a": "Hardmax (odd)"}


def test_frozen_weights_stay_in_the_step() -> None:
    with OrtTrainer(branches(), loss=MSE, batch_size=2, freeze_untrainable=True) as trainer:
        batch = Batch({"x": random([2, 3])}, random([2, 2]), None, 2)
        before = trainer.backward(batch)
        trainer.update(1e-2)
        assert trainer.backward(batch) < before
        assert set(trainer.weights) == {"b", "c"}


def test_model_that_is_wholly_before_it_has_nothing_to_train() -> None:
    model = branches()
    model.graph.node.append(helper.make_node("Hardmax", ["y"], ["z"], name="end"))
    model.graph.output[0].name = "z"
    with pytest.raises(NotTrainableError, match="at least one float32 weight"):
        prepare(model, loss=MSE, batch_size=2, freeze_untrainable=True)


def test_control_flow_of_known_condition_is_decided() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["h"], ["out"])], operator, [], [output])

    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("If", ["yes"], ["y"], name="node", then_branch=branch("Tanh"), else_branch=branch("Relu")),
        ],
        inputs={"x": ["N", 3]},
        outputs=["y"],
        weights={"w": random([3, 4]), "yes": np.array(True)},
    )
    kinds = [node.op_type for node in prepare(model, loss=MSE, batch_size=2).forward.graph.node]
    assert "Tanh" in kinds
    assert not {"If", "Relu"} & set(kinds)
