"""Whether quantised networks compute here what they compute elsewhere."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxadmm.bench.byte_products import byte_products_are_exact, multiplies_signed_bytes
from onnxadmm.graph import runtime
from onnxadmm.graph.model import Model, load, to_proto
from onnxadmm.graph.runtime import open_session
from tests.bench.models import relu
from tests.graph.saturating import processor_without_vnni
from tests.graph.test_exact_integers import CASES

ZOO = Path(__file__).parents[1] / "zoo"


@pytest.mark.parametrize("name", ["integers", "matrices", "gemm", "to floats", "from floats"])
def test_the_answer_holds_for_every_product_that_users_run(name: str) -> None:
    case = CASES[name]
    with open_session(case.model()) as session:
        found = session.run({"x": case.feed})["y"]
    assert bool((found == case.expected).all()) == byte_products_are_exact()


def test_a_processor_without_vnni_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_there(options: Any, model: Model, stack: ExitStack, *, apart: bool) -> ReferenceEvaluator:
        return processor_without_vnni(onnx.ModelProto.FromString(to_proto(model).SerializeToString()))

    monkeypatch.setattr(runtime, "_load", open_there)
    assert not byte_products_are_exact()


@pytest.mark.parametrize(
    ("name", "signed"),
    [("ort_qoperator_mlp", True), ("ort_qdq_resnet", True), ("torch_script_mlp", False), ("ort_float16_mlp", False)],
)
def test_quantised_networks_are_told_from_others(name: str, signed: bool) -> None:
    assert multiplies_signed_bytes(load(ZOO / f"{name}.onnx")) == signed


def test_a_network_without_weights_is_not_quantised() -> None:
    assert not multiplies_signed_bytes(relu())
