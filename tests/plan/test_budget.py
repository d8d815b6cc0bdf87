"""Amounts and shares, however they are written."""

import pytest

import onnxadmm as oa
from onnxadmm.errors import OptionError
from onnxadmm.plan.budget import parse_amount, parse_share


@pytest.mark.parametrize(
    ("text", "number"),
    [("10%", 0.1), ("7 %", 0.07), ("100%", 1.0), ("0.5%", 0.005), ("0.3", 0.3), (0.3, 0.3), ("20M", 2e7), ("4K", 4000)],
)
def test_an_amount_is_a_share_a_percentage_or_a_number(text: str | float, number: float) -> None:
    assert parse_amount(text, option="--params") == number


@pytest.mark.parametrize("text", ["0%", "120%", "-3", "x", "3%M", "%", ""])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--params: expected a share"):
        parse_amount(text, option="--params")


@pytest.mark.parametrize(
    ("text", "number"), [("2MB", 2e6), ("500kB", 5e5), ("1.5 GB", 1.5e9), ("900B", 900), ("20K", 2e4)]
)
def test_bytes_have_units(text: str, number: float) -> None:
    assert parse_amount(text, option="--size") == number


@pytest.mark.parametrize(
    ("option", "text"), [("--params", "2MB"), ("--macs", "20k"), ("--size", "2MM"), ("--size", "MB")]
)
def test_units_that_do_not_fit_are_refused(option: str, text: str) -> None:
    with pytest.raises(OptionError, match=f"{option}: expected a share"):
        parse_amount(text, option=option)


@pytest.mark.parametrize(("text", "number"), [("30%", 0.3), ("0.3", 0.3), (0.3, 0.3), (1, 1.0), (" 7 % ", 0.07)])
def test_a_share_is_a_number_or_a_percentage(text: str | float, number: float) -> None:
    assert parse_share(text, option="--ratio") == number


def test_a_share_that_is_no_number_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--ratio: expected a share such as 0\.3 or 30%"):
        parse_share("a third", option="--ratio")


def test_every_share_may_be_a_percentage() -> None:
    assert oa.Budget(connections="50%").connections == 0.5
    assert oa.Limits(max_ratio="90%").max_ratio == 0.9
    with pytest.raises(OptionError, match="--connections"):
        oa.Budget(connections="150%")
    with pytest.raises(OptionError, match="--max-ratio"):
        oa.Limits(max_ratio="150%")


def test_several_amounts_are_a_budget() -> None:
    budget = oa.Budget(macs=0.5, params="20K", size="1MB")
    assert budget.amounts == {"macs": 0.5, "params": "20K", "size": "1MB"}
    assert budget.describe() == "macs 0.5, params 20K, size 1MB"
    assert [budget.resolve(kind, 5e6) for kind in budget.amounts] == [2.5e6, 2e4, 1e6]
    with pytest.raises(OptionError, match="give --macs, --params, --size, --latency or --connections"):
        oa.Budget()


def test_a_budget_shows_what_was_given() -> None:
    assert repr(oa.Budget(params="10%")) == "Budget(params='10%')"
    assert repr(oa.Budget(macs=0.5, connections=0.2)) == "Budget(macs=0.5, connections=0.2)"
    assert repr(oa.Budget(latency="3ms", latency_batch=4)) == "Budget(latency='3ms', latency_batch=4)"


@pytest.mark.parametrize(
    ("text", "number"), [("3ms", 3.0), ("800us", 0.8), ("0.5s", 500.0), ("0.5", 0.5), ("50%", 0.5), (" 2 ms ", 2.0)]
)
def test_times_have_units(text: str, number: float) -> None:
    assert parse_amount(text, option="--latency") == pytest.approx(number)


def test_a_time_below_a_millisecond_is_no_share() -> None:
    assert oa.Budget(latency="0.5ms").resolve("latency", 2.0) == 0.5
    assert oa.Budget(latency=0.5).resolve("latency", 2.0) == 1.0
    assert oa.Budget(latency="9ms").resolve("latency", 2.0) == 9.0  # more than there is, and met by it
    assert oa.Budget(latency="0.5ms").latency_share is None


def test_products_stand_for_a_latency_that_is_not_measured_yet() -> None:
    assert oa.Budget(latency=0.3).before_measuring() == oa.Budget(macs=0.3)
    assert oa.Budget(latency="3ms", params=0.2).before_measuring() == oa.Budget(macs=0.5, params=0.2)
    assert oa.Budget(latency=0.3, macs=0.6).before_measuring() == oa.Budget(macs=0.6)
    assert oa.Budget(macs=0.6).before_measuring() == oa.Budget(macs=0.6)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(OptionError, match="--latency-batch: expected at least 1, found 0"):
        oa.Budget(latency=0.5, latency_batch=0)
    with pytest.raises(OptionError, match="--latency-batch: expected --latency, which it is about"):
        oa.Budget(macs=0.5, latency_batch=4)
