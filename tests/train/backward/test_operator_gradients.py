"""The table of operators says of each what training makes of it, and that is what happens."""

from pathlib import Path

import pytest

from benchmarks.operators import training_cells
from onnxadmm.operators.table import Operator, ruled_operators
from tests.train.backward.operator_gradients import Outcome, outcome_of

pytestmark = pytest.mark.usefixtures("engine")

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"
TOLERANCE = 2e-3


def every() -> list[object]:
    return [
        pytest.param(rule, id=f"{rule.domain}:{rule.name}" if rule.domain else rule.name) for rule in ruled_operators()
    ]


@pytest.mark.parametrize("rule", every())
def test_gradient_is_right_or_refused_by_name_as_the_table_says(rule: Operator) -> None:
    outcome = outcome_of(rule)
    assert outcome.error < TOLERANCE
    assert (outcome.forms > 0) == (outcome.training == "yes")
    section = PAGE.read_text(encoding="utf-8").split(f"## {rule.domain or 'ai.onnx'}")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| {rule.name} |"))
    training, forms, _ = training_cells(rule, outcome)
    assert f" | {training} | {forms} |" in row, "make it anew: python -m benchmarks.operators > docs/operators.md"


def test_operators_whose_results_carry_no_gradient_are_not_called_trainable() -> None:
    found = {rule.name: outcome_of(rule).training for rule in ruled_operators() if rule.gradient == "zero"}
    assert set(found.values()) == {"none"}


def test_wrong_slopes_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train.backward import operator_gradients as gradients

    rule = next(rule for rule in ruled_operators() if rule.name == "Elu")
    whole = gradients._loss_of

    def bent(*given: object) -> object:
        loss, steps = whole(*given)  # type: ignore[arg-type]
        return (lambda name, step: 1.02 * loss(name, step)), steps

    monkeypatch.setattr(gradients, "_loss_of", bent)
    assert gradients.outcome_of(rule).error > TOLERANCE


def test_an_outcome_without_forms_has_no_error_to_show() -> None:
    rule = next(rule for rule in ruled_operators() if rule.name == "Hardmax")
    assert training_cells(rule, Outcome("refused")) == ("refused", "", "")
