"""Norms over features: what is made up for wrongly is found, and scales keep their readers."""

from dataclasses import replace

import numpy as np
import pytest

from onnxadmm.graph.constants import constant, set_constant
from onnxadmm.graph.model import to_proto
from onnxadmm.operators.table import Operator
from onnxadmm.rules import feature_norms
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.visit import Visit
from tests.rewrite import laws
from tests.rules.faults import caught, not_rewritten, plant
from tests.rules.summing import SUMMING
from tests.samples_text import parse_sample

SCALE = Edit.scale_operand
ROOTS = [
    name for name in SUMMING if SUMMING[name].operator.endswith(("RMSNormalization", "SimplifiedLayerNormalization"))
]


def wrong_scale(edit: Edit, index: int, factor: float) -> None:
    """The share instead of its inverse."""
    SCALE(edit, index, 1 / factor)


def wrong_root(edit: Edit, index: int, factor: float) -> None:
    """The share of the mean, not of its root."""
    SCALE(edit, index, factor**2)


def for_all_readers(edit: Edit, index: int, factor: float) -> None:
    """The weight is multiplied where it lies, once for each of its readers."""
    value = edit._node.inputs[index]
    assert value is not None
    array = constant(value)
    assert array is not None
    set_constant(edit._model, value, array * np.float32(factor))


@pytest.mark.parametrize("name", ROOTS)
def test_a_root_mean_square_that_is_made_up_for_wrongly_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SUMMING[name].model()
    for fault in (wrong_scale, wrong_root, lambda edit, index, factor: None):
        with monkeypatch.context() as patch:
            patch.setattr(Edit, "scale_operand", fault)
            assert caught(original, seeds=range(1))
    with monkeypatch.context() as patch:
        patch.setattr(Edit, "set_number", lambda edit, name, value: None)
        assert caught(original, seeds=range(1))
    plant(not_rewritten, SUMMING[name].operator, domain=SUMMING[name].domain)
    assert caught(original, seeds=range(1))


@pytest.mark.parametrize("name", [name for name in ROOTS if "squares" in name])
def test_a_shared_scale_that_is_made_up_for_twice_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Edit, "scale_operand", for_all_readers)
    assert caught(SUMMING[name].model(), seeds=range(1))


@pytest.mark.parametrize("operand", [0, 1])
def test_a_sum_of_which_one_part_is_not_hidden_is_found(operand: int) -> None:
    name = "root mean square of a sum, which is read as well"

    def half_gated(rule: Operator) -> Operator:
        def label(visit: Visit) -> None:
            rule.label(visit)
            reads = visit._facts.activation_reads
            reads[:] = [read for read in reads if read.operand != operand]

        return replace(rule, label=label)

    plant(half_gated, "SkipSimplifiedLayerNormalization", domain="com.microsoft")
    assert caught(SUMMING[name].model(), seeds=range(1))


def without_removed(edit: Edit, operator: str, *operands: object, **attributes: object) -> object:
    """The zeros that were removed are taken for as far from the mean as the others."""
    first = operands[0]
    if operator == "Mul" and first is operands[1] and first.producer().op_type == "Mul":  # type: ignore[attr-defined]
        operator = "Sub"
    return WRITE(edit, operator, *operands, **attributes)  # type: ignore[arg-type]


LAYERS = [name for name in SUMMING if SUMMING[name].operator in ("LayerNormalization", "SkipLayerNormalization")]
WRITE, SHARE = Edit.write, feature_norms._share


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_normalisation_that_is_written_out_wrongly_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SUMMING[name].model()
    with monkeypatch.context() as patch:
        patch.setattr(Edit, "write", without_removed)
        assert caught(original, seeds=range(1))
    for wrong in (lambda share: share**0.5, lambda share: 1 / share):
        with monkeypatch.context() as patch:
            patch.setattr(feature_norms, "_share", lambda edit, axes, wrong=wrong: wrong(SHARE(edit, axes)))
            assert caught(original, seeds=range(1))
    plant(not_rewritten, SUMMING[name].operator, domain=SUMMING[name].domain)
    assert caught(original, seeds=range(1))


@pytest.mark.parametrize("operator", ["LayerNormalization", "com.microsoft.SkipLayerNormalization"])
def test_a_layer_normalisation_that_loses_nothing_stays_one_operator(operator: str) -> None:
    sum_of = "h" if operator == "LayerNormalization" else "h, h"
    original = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        kept (float[N,5,3] x) => (float[N,5,2] y)
        <float[3,4] W1, float[4] scale, float[4,4] W3, float[4,2] W2>
        {{ h = MatMul (x, W1)
          n = {operator} ({sum_of}, scale)
          k = MatMul (n, W3)
          y = MatMul (k, W2) }}"""
    )
    model, units = laws.units_of(original)
    (behind,) = [group for group in units.groups if "W1" not in group.tensors]
    keep = np.ones(units.count, np.bool_)
    keep[behind.start] = False
    small = to_proto(laws.prune(original, model, units, keep).shrunk)
    assert [node.op_type for node in small.graph.node] == [node.op_type for node in original.graph.node]


def test_the_bias_of_a_sum_is_hidden_and_cut_with_its_parts() -> None:
    """Read off the file: the kernel of onnxruntime 1.19 leaves the bias out."""
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        biased (float[N,5,3] x) => (float[N,5,2] y)
        <float[3,4] W1, float[3,4] W3, float[4] scale, float[4] bias, float[4,2] W2>
        { h = MatMul (x, W1)
          k = MatMul (x, W3)
          n = com.microsoft.SkipSimplifiedLayerNormalization (h, k, scale, bias)
          y = MatMul (n, W2) }"""
    )
    model, units = laws.units_of(original)
    keep = np.array([True, False, True, True])
    case = laws.prune(original, model, units, keep)
    bias = laws.constants(original.graph)["bias"]
    np.testing.assert_array_equal(laws.constants(to_proto(case.masked).graph)["bias"], bias * keep)
    np.testing.assert_array_equal(laws.constants(to_proto(case.shrunk).graph)["bias"], bias[keep])
    assert len(units.gates) == 2
    assert {reader.tensor for reader in units.readers} == {"bias", "W2"}


def test_a_scale_that_all_norms_read_stays_one_by_its_name_and_others_keep_theirs() -> None:
    kinds = {"root mean squares of one scale": {"scale"}}
    kinds["root mean squares that share a scale, which is added as well"] = {"scale", "scale_pruned"}
    for name, expected in kinds.items():
        original = SUMMING[name].model()
        model, units = laws.units_of(original)
        keep = np.ones(units.count, np.bool_)
        keep[0] = False
        case = laws.prune(original, model, units, keep)
        arrays = laws.constants(to_proto(case.shrunk).graph)
        assert {found for found in arrays if found.startswith("scale")} == expected
        before = laws.constants(original.graph)["scale"][1:]
        np.testing.assert_allclose(arrays[max(expected)], before * np.sqrt(np.float32(4 / 3)), rtol=1e-6)
        if len(expected) > 1:
            np.testing.assert_array_equal(arrays["scale"], before)


@pytest.mark.parametrize("operator", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_a_norm_over_no_axis_locks(operator: str) -> None:
    original = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        empty (float[N,5,3] x) => (float[N,5,2] y)
        <float[3,4] W1, float[4] scale, float[4,2] W2>
        {{ h = MatMul (x, W1)
          n = {operator} <axis: int = 3> (h, scale)
          y = MatMul (n, W2) }}"""
    )
    _, units = laws.units_of(original)
    assert not units.groups
    assert any("names no axis to normalise over" in group.reason for group in units.locked)


def test_who_reads_the_root_that_a_norm_divides_by_keeps_its_width() -> None:
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        shown (float[N,5,3] x) => (float[N,5,2] y)
        <float[3,4] W1, float[4] scale, float[4,2] W2>
        { h = MatMul (x, W1)
          n, root = SimplifiedLayerNormalization (h, scale)
          m = Mul (n, root)
          y = MatMul (m, W2) }"""
    )
    (locked,) = [group for group in laws.units_of(original)[1].locked if "W1" in group.tensors]
    assert "SimplifiedLayerNormalization (n) shows what it normalises with" in locked.reason
