from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

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


def test_binary_probabilities_become_two_logits_with_their_softmax() -> None:
    model = mlp(outputs=1)
    model.graph.node.extend(
        [
            helper.make_node("Sigmoid", ["logits"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["both"], axis=1),
            helper.make_node("ArgMax", ["both"], ["c"], axis=1),
        ]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1]), "one"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("both", TensorProto.FLOAT, None))
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.INT64, None))
    feed = {"x": random([5, 6])}
    (both,) = ReferenceEvaluator(model).run(["both"], feed)
    copy, tail = cut_tail(model)
    (logits,) = ReferenceEvaluator(copy).run(None, feed)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), both, rtol=1e-5)
    assert tail.class_axis == 1


@pytest.mark.parametrize("layout", ["Reshape", "Squeeze"])
def test_labels_may_be_laid_out_anew_behind_their_choice(layout: str) -> None:
    model = with_tail(
        helper.make_node("ArgMax", ["logits"], ["a"], axis=1),
        helper.make_node("Gather", ["classes", "a"], ["g"]),
        helper.make_node(layout, ["g", "shape"], ["l"]),
        helper.make_node("Cast", ["l"], ["label"], to=TensorProto.INT64),
        outputs=("label",),
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4), "classes"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([-1 if layout == "Reshape" else 1]), "shape"))
    assert cut_tail(model)[1].logits == "logits"


@pytest.mark.parametrize("batch", ["N", 3])
def test_a_view_that_mixes_samples_with_positions_is_cut_off(batch: int | str) -> None:
    model = mlp(batch=batch)
    model.graph.node.append(helper.make_node("Reshape", ["logits", "column"], ["flat"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([-1, 1]), "column"))
    model.graph.output[0].name = "flat"
    _, tail = cut_tail(model)
    assert tail.logits == "logits"
    assert [entry.split(" ")[0] for entry in tail.operators] == ["Reshape"]


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
