"""What decides the result of a run: every option, whoever adds it, unless it is named as one that does not."""

from dataclasses import field, fields, make_dataclass, replace
from inspect import signature
from typing import Any

import pytest

import onnxadmm as oa
from onnxadmm.plan.problem import Limits
from onnxadmm.run.choices import FREE_TO_CHANGE, Choices
from onnxadmm.train.norm_restore import ENOUGH

CHOICES = Choices(
    budget=oa.Budget(params=0.5),
    targets={},
    connection_targets={},
    preset=None,
    inputs={},
    limits=Limits(),
    preprocessing=oa.Preprocessing(),
    calibration=oa.CalibrationOptions(),
    recipe=oa.Recipe(),
    ignore=(),
    inexact=False,
    features=False,
    simplified=True,
    seed=0,
    input_shapes=None,
    custom_ops=None,
    rules=None,
    teacher=None,
    max_minutes=None,
)
#: Parameters of ``compress`` that are no choice: what goes in, where it goes, and how it is told.
OTHER_PARAMETERS = {"model", "data", "calibrate", "test", "out", "sparse", "single_file", "force", "resume", "progress"}
OTHER_PARAMETERS |= {"bench", "bench_batch", "bench_threads", "expect_accuracy", "fp16", "int8", "options", "shared"}
OTHER_PARAMETERS |= {"quick"}  # which is a time


def with_a_new_field(kind: type, value: int, **given: Any) -> Any:
    """An object of a kind that has one more field, as if somebody had added an option."""
    wider = make_dataclass(f"Wider{kind.__name__}", [("invented", int, field(default=0))], bases=(kind,), frozen=True)
    return wider(**given, invented=value)


@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [
        ("budget", oa.Budget, {"params": 0.5}),
        ("limits", Limits, {}),
        ("preprocessing", oa.Preprocessing, {}),
        ("recipe", oa.Recipe, {}),
        ("calibration", oa.CalibrationOptions, {}),
    ],
)
def test_a_field_that_is_added_to_an_option_decides_the_result(name: str, kind: type, given: dict[str, Any]) -> None:
    one, other = (replace(CHOICES, **{name: with_a_new_field(kind, value, **given)}).deciding() for value in (1, 2))
    assert one == {**CHOICES.deciding(), "--invented": "1"}
    assert other == {**one, "--invented": "2"}


def test_a_field_that_is_added_to_the_choices_decides_the_result() -> None:
    given = {item.name: getattr(CHOICES, item.name) for item in fields(CHOICES)}
    wider = make_dataclass("Wider", [("invented", int)], bases=(Choices,), frozen=True)
    assert wider(**given, invented=1).deciding() == {**CHOICES.deciding(), "--invented": "1"}


def test_every_parameter_of_compress_is_a_choice_or_named_as_none() -> None:
    choices = {item.name for item in fields(Choices)} - {"rules"}  # which are declared before the call
    assert set(signature(oa.compress).parameters) == choices | OTHER_PARAMETERS


def test_two_fields_that_make_one_option_are_refused() -> None:
    twice = make_dataclass("Twice", [("seed", int, field(default=1))], bases=(oa.Recipe,), frozen=True)
    with pytest.raises(ValueError, match="two options are called seed"):
        replace(CHOICES, recipe=twice()).deciding()


def test_processes_and_threads_do_not_decide_the_result() -> None:
    other = replace(CHOICES, recipe=oa.Recipe(threads=2, workers=2, accumulate=2))
    assert other.deciding() == CHOICES.deciding()
    assert not {f"--{name}" for name in FREE_TO_CHANGE} & set(CHOICES.deciding())


def test_parts_too_small_for_batch_statistics_train_another_network() -> None:
    batch_size = 2 * (ENOUGH - 1)
    whole, cut = (replace(CHOICES, recipe=oa.Recipe(batch_size=batch_size, accumulate=n)) for n in (1, 2))
    assert whole.deciding()["--norm"] != cut.deciding()["--norm"]


def test_without_calibration_its_options_are_none() -> None:
    none = replace(CHOICES, calibration=None).deciding()
    assert none == {**CHOICES.deciding(), "--effort": "none", "--by": "none"}


def test_without_a_budget_its_amounts_are_none() -> None:
    none = replace(CHOICES, budget=None).deciding()
    assert none == {**CHOICES.deciding(), "--params": "none", "--latency-batch": "none"}
    assert {f"--{item.name}".replace("_", "-") for item in fields(oa.Budget)} <= set(none)


def test_a_function_is_known_by_its_name_wherever_it_lies() -> None:
    def made() -> oa.Recipe:
        def worst(outputs: object, labels: object) -> float:
            return 0.0

        return oa.Recipe(metric=worst)

    one, other = (replace(CHOICES, recipe=made()) for _ in range(2))
    assert one.deciding() == other.deciding()
    assert one.deciding()["--metric"] == '"worst"'
    assert one.options()["metric"] == "worst"
