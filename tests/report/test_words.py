"""Figures in words, at the edges between units."""

import math

import pytest

from onnxadmm.report.words import decibels, duration, large, milliseconds, percent, plural, size_in_bytes, times


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (431_080, "431,080"),
        (999_999, "999,999"),
        (1_000_000, "1.000 M"),
        (2_293_000, "2.293 M"),
        (40_813_184, "40.81 M"),
        (4.1e9, "4.100 G"),
        (4310.8, "4,311"),
        (0.25, "0.25"),
    ],
)
def test_counts(value: float, words: str) -> None:
    assert large(value) == words


@pytest.mark.parametrize(("value", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.000 kB"), (1_726_863, "1.727 MB")])
def test_sizes(value: int, words: str) -> None:
    assert size_in_bytes(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0004567, "0.000457"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234"), (0, "0")],
)
def test_milliseconds_keep_three_digits(value: float, words: str) -> None:
    assert milliseconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3840, "1 h 04 min")],
)
def test_durations(value: float, words: str) -> None:
    assert duration(value) == words


def test_the_rest() -> None:
    assert percent(0.99424) == "99.42 %"
    assert [times(value) for value in (1.234, 12.34, 123.4, math.inf)] == ["1.23x", "12.3x", "123x", "-"]
    assert decibels(math.inf) == "equal in every bit"
    assert decibels(127.34) == "127.3 dB"
    assert [plural(count, "thread") for count in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
