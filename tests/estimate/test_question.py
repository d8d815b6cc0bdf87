"""What may be asked of an estimate, and what is refused in one sentence."""

from typing import Any

import numpy as np
import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from onnxadmm.estimate.question import Question
from onnxadmm.runtime.cores import usable_cores
from tests.conftest import Command

NUMBERS = np.zeros((64, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"hours": 0}, "--hours"),
        ({"hours": float("inf")}, "--hours"),
        ({"hours": float("nan")}, "--hours"),
        ({"cores": 0}, "--cores"),
        ({"machines": 0}, "--machines"),
        ({"samples": -5}, "--samples"),
        ({"link_mbit": 0}, "--link-mbit"),
        ({"price_per_core_hour": -1}, "--price-per-core-hour"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_option(given: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError, match=f"{option}: expected (at least|above) "):
        Question(**given)


def test_costs_are_those_of_all_cores_of_all_machines() -> None:
    question = Question(cores=8, machines=4, price_per_core_hour=0.05)
    assert question.cost(1800) == pytest.approx(0.05 * 8 * 4 / 2)
    assert Question(cores=8).cost(1800) is None
    assert Question(price_per_core_hour=0.1).cost(3600) == pytest.approx(0.1 * usable_cores())


def test_this_machine_is_not_elsewhere() -> None:
    assert not Question().is_elsewhere
    assert not Question(cores=usable_cores()).is_elsewhere
    assert Question(cores=usable_cores() + 1).is_elsewhere
    assert Question(machines=2).is_elsewhere


@pytest.mark.parametrize("given", [{"hours": 1}, {"cores": 99}, {"machines": 2}, {"samples": 10**6}])
@pytest.mark.parametrize("way", [{"calibrate": NUMBERS}, {"data": NUMBERS, "recipe": {"method": "calibrated"}}])
def test_a_calibration_is_told_of_this_machine_alone(
    given: dict[str, Any], way: dict[str, Any], digits: DemoFiles
) -> None:
    (name,) = given
    with pytest.raises(OptionError, match=f"--{name}: expected a run with --data .*found a calibration"):
        oa.estimate(digits.model, budget={"macs": 0.5}, **given, **way)


@pytest.mark.parametrize("given", [{"hours": 1}, {"cores": 99}, {"machines": 2}, {"samples": 10**6}])
def test_a_method_left_open_is_one_that_can_be_told_of_elsewhere(given: dict[str, Any]) -> None:
    call = {"data": NUMBERS, "recipe": {"batch_size": 32}}
    assert Question(**given).of_training(call)["recipe"] == oa.Recipe(method="admm", batch_size=32)
    assert Question(price_per_core_hour=0.1).of_training(call) is call
    assert Question(cores=usable_cores()).of_training(call)["recipe"].method == "admm"  # beside those of others
    preset = {**call, "preset": "lenet5-paper"}
    assert Question(**given).of_training(preset) is preset


def test_a_cluster_is_no_place_to_estimate_on(digits: DemoFiles) -> None:
    with pytest.raises(OptionError, match=r"--cluster: expected one machine.*found local:2; use --machines instead\."):
        oa.estimate(digits.model, data=NUMBERS, budget={"macs": 0.5}, recipe={"cluster": "local:2"})


@pytest.mark.parametrize("given", [{"resume": True, "out": "out"}, {"quick": True}, {"max_minutes": 3}])
def test_what_is_about_another_run_is_refused(given: dict[str, Any], digits: DemoFiles) -> None:
    with pytest.raises(OptionError, match=r"use --hours instead\."):
        oa.estimate(digits.model, data=NUMBERS, budget={"macs": 0.5}, **given)


def test_data_that_no_other_process_can_have_are_refused(digits: DemoFiles) -> None:
    with pytest.raises(OptionError, match="the arguments: expected paths, arrays"):
        oa.estimate(digits.model, data=({"image": NUMBERS} for _ in range(2)), budget={"macs": 0.5})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--hours", "0"), "--hours: expected above 0"),
        (("--machines", "0"), "--machines: expected at least 1"),
        (("--max-drop", "1"), "--max-drop: expected one run, found a search of several"),
    ],
)
def test_the_command_line_refuses_with_status_2(
    words: tuple[str, ...], sentence: str, digits: DemoFiles, command: Command
) -> None:
    ran = command("estimate", digits.model, "--data", digits.training, "--macs", "0.5", *words)
    assert ran.status == 2
    assert sentence in " ".join(ran.stderr.split())
