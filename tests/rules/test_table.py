"""The rule table is complete, and says of each operator what is true."""

from pathlib import Path

import pytest

from onnxadmm.operators.table import find, ruled_operators
from onnxadmm.rules.table import rule
from tests.samples_text import sample_names

DEFAULT = [entry for entry in ruled_operators() if entry.domain == ""]


def test_every_rule_has_a_sample() -> None:
    assert sorted({entry.name for entry in DEFAULT} - set(sample_names())) == []


def test_every_rule_says_what_it_does_in_one_line() -> None:
    for entry in ruled_operators():
        assert entry.note, entry.name
        assert "\n" not in entry.note, entry.name


def test_an_operator_cannot_have_two_rules() -> None:
    with pytest.raises(ValueError, match="label of 'Relu' of domain '' is stated twice"):
        rule("Relu", note="again")(lambda visit: None)


def test_the_default_domain_has_two_names() -> None:
    assert find("ai.onnx", "Relu") is find("", "Relu")
    assert find("", "Relu").label is not None


def test_an_operator_of_another_domain_has_no_rule_of_the_default_one() -> None:
    assert find("my.domain", "Relu").label is None


def test_the_documentation_lists_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    listed = sorted((row[0], row[2], row[-1]) for row in rows if row[0] not in ("Operator", "---"))
    rules = sorted((entry.name, entry.effect, entry.note) for entry in ruled_operators())
    assert listed == rules, "make it anew: python -m benchmarks.operators > docs/operators.md"
