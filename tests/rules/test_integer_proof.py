"""The proof of quantised networks on a processor that cuts sums of products off, which any processor can imitate."""

from contextlib import ExitStack
from typing import Any

import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxadmm.graph import runtime
from onnxadmm.graph.model import Model, to_proto
from tests.graph.saturating import processor_without_vnni
from tests.rewrite import laws
from tests.rewrite.plans import random_keep
from tests.rules.faults import Fault, caught, plant, shifted, untied
from tests.samples_text import load_sample

#: Operators in whose samples signed weights are multiplied.
SIGNED = ("MatMulInteger", "QLinearConv", "QLinearMatMul")


@pytest.fixture(autouse=True)
def _without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(options: Any, model: Model, stack: ExitStack, *, apart: bool) -> ReferenceEvaluator:
        return processor_without_vnni(onnx.ModelProto.FromString(to_proto(model).SerializeToString()))

    monkeypatch.setattr(runtime, "_load", load)


def prove(operator: str) -> float:
    """The ratio of the proof of the operator's sample under a random plan, in dB."""
    original = load_sample(operator)
    model, units = laws.units_of(original)
    case = laws.prune(original, model, units, random_keep(units, seed=1, kind="random"))
    assert case.removed
    return laws.law_masked_equals_shrunk(case).snr_db


@pytest.mark.parametrize("operator", SIGNED)
def test_a_quantised_network_is_proven(operator: str) -> None:
    assert prove(operator) > 100


def test_without_exact_products_the_proof_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "with_exact_integers", lambda model: model)
    with pytest.raises(AssertionError, match=r"dB, max abs error"):
        prove("MatMulInteger")


@pytest.mark.parametrize("operator", SIGNED)
@pytest.mark.parametrize("fault", [shifted, untied], ids=lambda fault: fault.__name__)
def test_a_wrong_rule_is_found_there_too(operator: str, fault: Fault) -> None:
    original = load_sample(operator)
    expected = laws.units_of(original)[1].count
    assert not caught(original, expected=expected, seeds=range(1))
    plant(fault, operator)
    assert caught(original, expected=expected)
