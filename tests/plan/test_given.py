"""Dicts in place of budgets and the like, and what is refused."""

import pytest

import onnxadmm as oa
from onnxadmm.errors import OptionError
from onnxadmm.plan.given import given, given_budget


def test_a_dict_of_fields_is_as_good() -> None:
    assert given_budget({"params": 0.3}) == oa.Budget(params=0.3)
    assert given_budget(oa.Budget(params=0.3)) == oa.Budget(params=0.3)
    assert given_budget(None) is None
    assert given(oa.Recipe, {"epochs": 3}, thing="the recipe", way_out="w") == oa.Recipe(epochs=3)


@pytest.mark.parametrize("value", [0.3, "0.3", 20_000, ["params"], {"parms": 0.3}])
def test_anything_else_is_refused_in_one_sentence_with_the_way_out(value: object) -> None:
    with pytest.raises(OptionError) as refused:
        given_budget(value)
    message = str(refused.value)
    fields = "macs, params, size, latency, latency_batch, connections"
    assert message.startswith(f"the budget: expected onnxadmm.Budget, or a dict of {fields}, found ")
    assert "onnxadmm.Budget(params=0.3)" in message
    assert "\n" not in message


def test_a_value_that_the_class_cannot_compare_is_refused() -> None:
    with pytest.raises(OptionError, match=r"the recipe: expected values that onnxadmm\.Recipe takes"):
        given(oa.Recipe, {"epochs": "three"}, thing="the recipe", way_out="give numbers")


def test_a_long_value_is_not_repeated() -> None:
    with pytest.raises(OptionError, match="found a list"):
        given_budget(list(range(1000)))
