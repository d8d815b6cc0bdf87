from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.train.prepare.tail import cut_tail
from tests.train.graphs import mlp, model_of, random


def with_tail(*nodes: onnx.NodeProto, outputs: tuple[str, ...], ml: bool = False) -> onnx.ModelProto:
    model = mlp()
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    if ml:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


@pytest.mark.parametrize(
    "chain",
    [
        [],
        ["Softmax"],
        ["LogSoftmax"],
        ["Identity", "Softmax", "Identity"],
        ["Softmax", "ArgMax", "Cast"],
        ["Cast"],
        ["Sigmoid"],
    ],
)
def test_tail_is_cut_down_to_the_logits(chain: list[str]) -> None:
    nodes, name = [], "logits"
    for index, operator in enumerate(chain):
        attributes: dict[str, Any] = {"to": TensorProto.FLOAT} if operator == "Cast" else {}
        nodes.append(helper.make_node(operator, [name], [f"t{index}"], name=f"tail{index}", **attributes))
        name = f"t{index}"
    copy, tail = cut_tail(with_tail(*nodes, outputs=(name,)))
    assert tail.logits == "logits"
    assert tail.output == name
    assert [entry.split(" ")[0] for entry in tail.operators] == chain
    assert [value.name for value in copy.graph.output] == ["logits"]
    assert [node.op_type for node in copy.graph.node] == ["Gemm", "Tanh", "Gemm"]


def test_model_keeps_its_tail() -> None:
    model = with_tail(helper.make_node("Softmax", ["logits"], ["p"]), outputs=("p",))
    before = model.SerializeToString()
    cut_tail(model)
    assert model.SerializeToString() == before


def test_scikit_learn_label_and_probabilities_are_one_tail() -> None:
    model = with_tail(
        helper.make_node("Softmax", ["logits"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["a"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "a"], ["l"], domain="ai.onnx.ml"),
        helper.make_node("Cast", ["l"], ["label"], to=TensorProto.INT64),
        helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3]),
        outputs=("label", "probabilities"),
        ml=True,
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4), "classes"))
    _, tail = cut_tail(model)
    assert tail.logits == "logits"
    assert {tail.output, *tail.dropped} == {"label", "probabilities"}
    assert "label" in str(tail)
    assert "Softmax" in str(tail)


def two_heads() -> onnx.ModelProto:
    model = mlp()
    model.graph.node.append(helper.make_node("Gemm", ["a", "w3"], ["other"], transB=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(random([2, 5]), "w3"))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))
    return model


def test_two_heads_are_refused_until_one_is_chosen() -> None:
    with pytest.raises(NotTrainableError, match=r"logits, other.*--output NAME.*--distillation 1"):
        cut_tail(two_heads())


def test_chosen_head_is_cut_out_and_the_other_dropped() -> None:
    copy, tail = cut_tail(two_heads(), output="other")
    assert (tail.logits, tail.dropped) == ("other", ("logits",))
    assert [node.output[0] for node in copy.graph.node] == ["h", "a", "other"]


def test_output_that_does_not_exist_is_refused_with_the_names_that_do() -> None:
    with pytest.raises(OptionError, match="logits, other"):
        cut_tail(two_heads(), output="third")


def test_softmax_in_the_middle_stays() -> None:
    model = model_of(
        [helper.make_node("Softmax", ["x"], ["p"]), helper.make_node("MatMul", ["p", "w"], ["out"])],
        inputs={"x": ["N", 4]},
        outputs=["out"],
        weights={"w": random([4, 3])},
    )
    copy, tail = cut_tail(model)
    assert tail.operators == ()
    assert [node.op_type for node in copy.graph.node] == ["Softmax", "MatMul"]


def test_model_that_is_nothing_but_a_tail_stays_whole() -> None:
    model = model_of([helper.make_node("Softmax", ["x"], ["y"])], inputs={"x": ["N", 4]}, outputs=["y"], weights={})
    _, tail = cut_tail(model)
    assert tail.logits == "y"


def test_sigmoid_stays_for_a_loss_on_its_value() -> None:
    model = with_tail(helper.make_node("Sigmoid", ["logits"], ["p"]), outputs=("p",))
    assert cut_tail(model, keep_sigmoid=True)[1].logits == "p"
    assert cut_tail(model)[1].logits == "logits"
