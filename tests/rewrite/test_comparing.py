"""The comparator, and that it can fail in each of the ways it should."""

import math

import numpy as np
import pytest

from onnxadmm.rewrite.comparing import Gap, compare


def complaint(gap: Gap, *, limit: float = 80.0, exact_may_differ: float = 0.0) -> str | None:
    return gap.complaint(limit=limit, exact_may_differ=exact_may_differ)


def test_identical_arrays_have_an_infinite_ratio() -> None:
    array = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert compare(array, array.copy()) == Gap(math.inf, 0.0, 0.0, None)


@pytest.mark.parametrize("decibels", [20.0, 60.0, 100.0])
def test_noise_of_a_known_power_gives_its_ratio(decibels: float) -> None:
    signal = np.full(1000, 2.0)
    noise = np.full(1000, 2.0 * 10 ** (-decibels / 20)) * np.where(np.arange(1000) % 2, 1, -1)
    gap = compare(signal, signal + noise)
    assert gap.snr_db == pytest.approx(decibels, abs=1e-3)
    assert gap.max_abs_error == pytest.approx(2.0 * 10 ** (-decibels / 20))
    assert (complaint(gap) is None) == (decibels >= 80)


def test_a_single_wrong_element_among_a_million_is_seen() -> None:
    signal = np.ones(1_000_000, np.float32)
    wrong = signal.copy()
    wrong[123_456] = 0.0
    assert "60.0 dB" in str(complaint(compare(signal, wrong)))


def test_shapes_that_differ_are_named_with_numbers() -> None:
    gap = compare(np.zeros((2, 10), np.float32), np.zeros((2, 9), np.float32))
    assert gap.snr_db == -math.inf
    assert complaint(gap) == "shape should be [2, 10] and is [2, 9]"


def test_types_that_differ_are_named() -> None:
    assert complaint(compare(np.zeros(2, np.float32), np.zeros(2))) == "type should be float32 and is float64"


def test_nan_and_infinity_must_stand_at_the_same_positions() -> None:
    array = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    assert complaint(compare(array, array.copy())) is None
    for position, value in ((0, np.nan), (1, 0.0), (2, -np.inf), (2, np.nan), (3, 0.0)):
        other = array.copy()
        other[position] = value
        assert f"flat position {position}" in str(complaint(compare(array, other)))


def test_finite_elements_beside_nan_are_still_compared() -> None:
    assert complaint(compare(np.array([np.nan, 1.0]), np.array([np.nan, 1.1]))) is not None


def test_a_reference_of_zeros_accepts_noise_only() -> None:
    zeros = np.zeros(8, np.float32)
    assert complaint(compare(zeros, zeros)) is None
    assert complaint(compare(zeros, zeros + np.float32(1e-7))) is None
    assert "should be zero" in str(complaint(compare(zeros, zeros + np.float32(1e-3))))


def test_empty_arrays_agree_and_their_shapes_are_compared() -> None:
    assert complaint(compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))) is None
    assert complaint(compare(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32))) is not None


def test_integers_and_text_are_compared_exactly_unless_stated_otherwise() -> None:
    ids = np.arange(100)
    other = ids.copy()
    other[7] = 0
    gap = compare(ids, other)
    assert gap.exact_mismatch == pytest.approx(0.01)
    assert "1.000%" in str(complaint(gap))
    assert complaint(gap, exact_may_differ=0.02) is None
    words = np.array(["cat", "dog"], object)
    assert complaint(compare(words, words.copy())) is None
    assert complaint(compare(words, words[::-1])) is not None


def test_sequences_of_maps_compare_keys_exactly_and_numbers_by_ratio() -> None:
    maps = [{"cat": 0.25, "dog": 0.75}, {"cat": 1.0, "dog": 0.0}]
    near = [{"cat": 0.25 + 1e-9, "dog": 0.75}, {"cat": 1.0, "dog": 0.0}]
    far = [{"cat": 0.35, "dog": 0.65}, {"cat": 1.0, "dog": 0.0}]
    assert complaint(compare(maps, near)) is None
    assert "dB" in str(complaint(compare(maps, far)))
    assert "'dog'" in str(complaint(compare(maps, [{"cat": 0.25}, maps[1]])))
    assert "one side only" in str(complaint(compare(maps, maps[:1])))


def test_large_and_tiny_numbers_do_not_overflow_the_ratio() -> None:
    for scale in (1e-30, 1e30):
        array = np.full(10, scale)
        assert compare(array, array * (1 + 1e-5)).snr_db == pytest.approx(100, abs=0.1)
