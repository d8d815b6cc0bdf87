"""What a promise lets go: points, or percent of what the original has."""

import pytest

from onnxadmm.errors import OptionError
from onnxadmm.plan.drop import Drop, parse_drop


@pytest.mark.parametrize(
    ("asked", "drop", "back"),
    [(1, Drop(1.0), 1.0), ("0.5", Drop(0.5), 0.5), ("2%", Drop(2.0, relative=True), "2%"), (100, Drop(100.0), 100.0)],
)
def test_a_drop_is_a_number_of_points_or_percent(asked: float | str, drop: Drop, back: float | str) -> None:
    assert parse_drop(asked) == drop
    assert drop.asked == back
    assert parse_drop(str(drop)) == drop


def test_percent_are_those_of_what_the_original_has() -> None:
    assert parse_drop("2%").allowed(0.9) == pytest.approx(1.8)  # points of an accuracy of 90 %
    assert parse_drop(2).allowed(0.9) == 2
    assert parse_drop("2%").allowed(None) == 2  # a loss is counted in percent of itself as it is


@pytest.mark.parametrize("asked", [-1, 0, 101, "x", "%", "nan", "", "1 point"])
def test_what_is_no_drop_is_refused(asked: float | str) -> None:
    with pytest.raises(OptionError, match="--max-drop: expected points above 0 and at most 100, or percent"):
        parse_drop(asked)


def test_nothing_will_do_where_it_is_said_so() -> None:
    assert parse_drop(0, nothing=True).allowed(0.9) == 0
