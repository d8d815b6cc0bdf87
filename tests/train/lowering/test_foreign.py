"""Operators of the runtime's own domain: the same values as the runtime's kernels, and the right gradient."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import operators
from onnxadmm.train.artifacts import prepare
from tests.train.cases import MSE, Case, check, op
from tests.train.graphs import Array, random

pytestmark = pytest.mark.usefixtures("engine")

MICROSOFT = "com.microsoft"
VECTORS: dict[str, Array] = {"gamma": random([4], seed=4), "beta": random([4], seed=5), "bias": random([4], seed=6)}


def own(
    operator: str,
    *inputs: str,
    shape: tuple[int, ...] = (3, 4),
    more: dict[str, Array] | None = None,
    **attributes: Any,
) -> Case:
    node = helper.make_node(operator, ["h", *inputs], ["y"], name="node", domain=MICROSOFT, **attributes)
    constants = {name: VECTORS[name] for name in inputs if name in VECTORS} | (more or {})
    return Case([node], shape, constants, exact=False, microsoft=True)


def attention(**attributes: Any) -> Case:
    more = {"W": random([4, 12], seed=4, scale=0.5), "B": random([12], seed=5)}
    mask = attributes.pop("mask", None)
    if mask is not None:
        more["mask"] = np.array(mask, np.int32)
    return own("Attention", "W", "B", *(["mask"] if mask is not None else []), more=more, num_heads=2, **attributes)


def skipped(operator: str, *inputs: str, whole: bool = False) -> Case:
    outputs = ["z", "", "", "total"] if whole else ["y"]
    skip = helper.make_node("Tanh", ["h"], ["skip"])
    node = helper.make_node(operator, ["h", "skip", *inputs], outputs, name="node", domain=MICROSOFT, epsilon=1e-3)
    rest = [helper.make_node("Add", ["z", "total"], ["y"])] if whole else []
    more = {name: VECTORS[name] for name in inputs if name}
    return Case([skip, node, *rest], (3, 4), more, exact=False, microsoft=True)


def conv(**attributes: Any) -> Case:
    more = {"k": random([3, 2, 2, 2], seed=4), "b": random([3], seed=5)}
    return own("FusedConv", "k", "b", shape=(2, 4, 5), more=more, **attributes)


CASES: dict[tuple[str, str], list[Case]] = {
    ("", "SimplifiedLayerNormalization"): [
        Case([op("SimplifiedLayerNormalization", "gamma", axis=-1)], (3, 4), {"gamma": VECTORS["gamma"]}, exact=False)
    ],
    ("ai.onnx.ml", "Scaler"): [
        Case([op("Scaler", domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[0.5, 3.0])], (2,), exact=False, learning=True)
    ],
    (MICROSOFT, "Attention"): [
        attention(),
        attention(unidirectional=1),
        attention(mask=[3, 1, 2]),
        attention(mask=[[1, 1, 0], [1, 0, 1], [1, 1, 1]], scale=0.3),
    ],
    (MICROSOFT, "BiasGelu"): [own("BiasGelu", "bias")],
    (MICROSOFT, "FastGelu"): [own("FastGelu", "bias"), own("FastGelu")],
    (MICROSOFT, "FusedConv"): [
        conv(activation="Relu", pads=[1, 0, 0, 1]),
        conv(activation="LeakyRelu", activation_params=[0.2], strides=[2, 1]),
        conv(activation="HardSigmoid", activation_params=[0.3, 0.4]),
        conv(activation="Clip", activation_params=[-4.0, 4.0]),
    ],
    (MICROSOFT, "FusedGemm"): [own("FusedGemm", "k", shape=(4,), more={"k": random([4, 3])}, activation="Tanh")],
    (MICROSOFT, "FusedMatMul"): [
        own("FusedMatMul", "k", more={"k": random([5, 4])}, transB=1, alpha=0.5),
        own("FusedMatMul", "k", more={"k": random([3, 5])}, transA=1),
    ],
    (MICROSOFT, "SkipLayerNormalization"): [
        skipped("SkipLayerNormalization", "gamma", "beta"),
        skipped("SkipLayerNormalization", "gamma", "beta", "bias", whole=True),
        skipped("SkipLayerNormalization", "gamma"),
    ],
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): [
        skipped("SkipSimplifiedLayerNormalization", "gamma"),
        # The kernel of the training build leaves a bias out.
        skipped("SkipSimplifiedLayerNormalization", "gamma", whole=True),
    ],
}
#: Expansions that the CPU build has no kernel of to compare with, or that only whole networks hold.
WITHOUT_KERNEL = {
    (MICROSOFT, "BiasAdd"),
    (MICROSOFT, "EmbedLayerNormalization"),
    (MICROSOFT, "SimplifiedLayerNormalization"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{key[1]}-{at}") for key, cases in CASES.items() for at, case in enumerate(cases)]
)
def test_expanded_operator_has_its_values_and_the_right_gradient(case: Case) -> None:
    check(case)


def test_every_expansion_has_its_cases() -> None:
    foreign = {(entry.domain, entry.name) for entry in operators() if entry.domain or not onnx.defs.has(entry.name)}
    lowered = {(entry.domain, entry.name) for entry in operators() if entry.lowering is not None}
    assert set(CASES) | WITHOUT_KERNEL == foreign & lowered


def test_embedding_with_positions_and_segments_is_gathered_and_normalised() -> None:
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "EmbedLayerNormalization",
                    ["ids", "segments", "word", "position", "segment", "gamma", "beta"],
                    ["e", ""],
                    domain=MICROSOFT,
                ),
                helper.make_node("MatMul", ["e", "w"], ["y"]),
            ],
            "embedding",
            [helper.make_tensor_value_info(name, onnx.TensorProto.INT32, ["N", 3]) for name in ("ids", "segments")],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [
                onnx.numpy_helper.from_array(array, name)
                for name, array in {
                    "word": random([7, 4]),
                    "position": random([5, 4], seed=1),
                    "segment": random([2, 4], seed=2),
                    "gamma": VECTORS["gamma"],
                    "beta": VECTORS["beta"],
                    "w": random([4, 2]),
                }.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=8,
    )
    assert set(prepare(model, loss=MSE, batch_size=2).weights) == {"word", "position", "segment", "gamma", "beta", "w"}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (conv(activation="Selu"), "Selu"),
        (own("FusedMatMul", "k", more={"k": random([3, 4, 5])}, transBatchA=1), "transBatch"),
    ],
)
def test_form_without_expansion_is_refused_by_name(case: Case, words: str) -> None:
    with pytest.raises(NotTrainableError, match=rf"Fused.* \(node\).*{words}"):
        prepare(case.model(), loss=MSE, batch_size=3)
