"""The rule table is complete, and says of each operator what is true."""

from pathlib import Path

import pytest

from onnxadmm.rules import analyse  # noqa: F401  (fill the table)
from onnxadmm.rules.table import all_rules, find_rule, rule
from tests.samples_text import sample_names

DEFAULT = [entry for entry in all_rules() if entry.domain == ""]


def test_every_rule_has_a_sample() -> None:
    assert sorted({entry.operator for entry in DEFAULT} - set(sample_names())) == []


def test_every_rule_says_what_it_does_in_one_line() -> None:
    for entry in all_rules():
        assert entry.note, entry.operator
        assert "\n" not in entry.note, entry.operator


def test_an_operator_cannot_have_two_rules() -> None:
    with pytest.raises(ValueError, match="two rules for 'Relu'"):
        rule("Relu", note="again")(lambda visit: None)


def test_the_default_domain_has_two_names() -> None:
    assert find_rule("ai.onnx", "Relu") is find_rule("", "Relu") is not None


def test_an_operator_of_another_domain_has_no_rule_of_the_default_one() -> None:
    assert find_rule("my.domain", "Relu") is None


def test_the_documentation_lists_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    listed = sorted((row[0], row[2], row[-1]) for row in rows if row[0] not in ("Operator", "---"))
    rules = sorted((entry.operator, entry.effect, entry.note) for entry in all_rules())
    assert listed == rules, "make it anew: python -m benchmarks.operators > docs/operators.md"
