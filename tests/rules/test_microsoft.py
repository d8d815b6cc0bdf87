"""Operators of com.microsoft: exact where they pass units on, locked by name elsewhere, and wrong rules are found."""

import pytest
from onnx import helper

from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.operators.table import find, ruled_operators
from tests.graphs import feeds
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.rules.faults import Fault, caught, not_rewritten, plant, shifted, untied
from tests.samples_text import load_sample, microsoft_names

DOMAIN = "com.microsoft"
#: What follows ties again what the fault has untied, by the scales that both share.
RETIED = {"QuantizeLinear"}
#: Their results have no axis that could shrink in the sample.
LOCKING = {"DynamicQuantizeLSTM", "EmbedLayerNormalization"}
NAMES_SIZES = ("Attention", "FusedConv", "GroupQueryAttention", "MultiHeadAttention", "RotaryEmbedding")
#: Their rewrite makes up for a mean over fewer positions.
AVERAGES = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")


def test_every_rule_has_a_sample() -> None:
    assert {entry.name for entry in ruled_operators() if entry.domain == DOMAIN} == set(microsoft_names())


@pytest.mark.parametrize("operator", microsoft_names())
def test_shapes_are_those_that_the_runtime_finds(operator: str) -> None:
    original = load_sample(operator, domain=DOMAIN)
    names = [output for node in original.graph.node if node.op_type == operator for output in node.output if output]
    shapes = infer(load(original))
    found = [shapes.shape(name) for name in names]
    del original.graph.output[:]
    original.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    results = laws.run(original, feeds(original, batch=2), optimise=False)
    assert found == [result.shape for result in results]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", microsoft_names())
def test_units_pass_exactly(operator: str, kind: str) -> None:
    original = load_sample(operator, domain=DOMAIN)
    cases = laws.hold(
        original,
        laws.law_masked_equals_shrunk,
        laws.law_masked_differs_only_in_zeros,
        laws.law_removed_units_cannot_be_seen,
        kinds=[kind],
        seeds=range(2),
    )
    units = cases[0].units
    assert any("W1" in group.tensors for group in units.groups), units.locked


@pytest.mark.parametrize("operator", [name for name in microsoft_names() if name not in LOCKING])
@pytest.mark.parametrize("fault", [shifted, untied], ids=lambda fault: fault.__name__)
def test_a_wrong_label_is_found(operator: str, fault: Fault) -> None:
    if fault is untied and operator in RETIED:
        return
    original = load_sample(operator, domain=DOMAIN)
    expected = laws.units_of(original)[1].count
    plant(fault, operator, domain=DOMAIN)
    assert caught(original, expected=expected)


def test_a_missing_rewrite_of_a_convolution_is_found() -> None:
    original = load_sample("FusedConv", domain=DOMAIN)
    plant(not_rewritten, "FusedConv", domain=DOMAIN)
    assert caught(original)


@pytest.mark.parametrize("operator", ["Attention", "MultiHeadAttention", "RotaryEmbedding"])
def test_the_number_of_heads_follows(operator: str) -> None:
    """Read off the file: with a wrong number the runtime may write beyond its memory."""
    original = load_sample(operator, domain=DOMAIN)
    model, units = laws.units_of(original)
    (group,) = [group for group in units.groups if "W1" in group.tensors]
    keep = random_keep(units, seed=0, kind="one goes")
    for fault, expected in ((None, group.count - 1), (not_rewritten, group.count)):
        if fault is not None:
            plant(fault, operator, domain=DOMAIN)
        nodes = to_proto(laws.prune(original, model, units, keep).shrunk).graph.node
        (node,) = [node for node in nodes if node.op_type == operator]
        assert [attribute.i for attribute in node.attribute if attribute.name == "num_heads"] == [expected]


def test_no_other_rule_names_sizes() -> None:
    rewriting = {entry.name for entry in ruled_operators() if entry.domain == DOMAIN and entry.rewrite is not None}
    assert rewriting == {*NAMES_SIZES, *AVERAGES}
    assert find(DOMAIN, "MatMulNBits").label is None  # its weight is packed: it locks by name
