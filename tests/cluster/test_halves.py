"""What moves is sent in half precision: nothing is lost for good, and both sides have the same bits."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from onnxadmm.cluster.halves import Halves, Rounding

Vector = NDArray[np.float32]
SIZE = 5

#: Weights and their differences, of any size that either can have.
NUMBERS = st.floats(-(2.0**60), 2.0**60, width=32)


def sent(vectors: list[Vector]) -> tuple[list[Vector], list[Halves], Rounding[np.float32]]:
    """Send vectors one after the other to one who begins with nothing; return what he has after each."""
    rounding, known, has, moved = Rounding(SIZE, np.float32), np.zeros(SIZE, np.float32), [], []
    for vector in vectors:
        moved.append(rounding.halved(vector, known))
        known = moved[-1].added_to(known)
        has.append(known)
    return has, moved, rounding


@given(st.lists(arrays(np.float32, SIZE, elements=NUMBERS), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
@example([np.full(SIZE, 1.0, np.float32), np.full(SIZE, 1.0 + 2.0**-20, np.float32)])
@example([np.array([2.0**16 - 1, 2.0**-30, -1e-20, 0.0, 65520.0], np.float32)] * 3)
def test_what_arrives_is_the_last_vector_to_two_roundings(vectors: list[Vector]) -> None:
    has, moved, _ = sent(vectors)
    before, left = np.zeros(SIZE), np.zeros(SIZE)
    for vector, now, half in zip(vectors, has, moved, strict=True):
        assert half.numbers.dtype == np.float16
        assert np.isfinite(half.numbers).all()
        way = np.abs(vector.astype(np.float64) - before) + left
        # Of its own way, of the largest one of all, and of the sums that the receiver and the sender take in float32.
        rounding = 2.0**-11 * way + 2.0**-39 * way.max() + 2.0**-22 * (np.abs(vector) + np.abs(before) + left) + 2e-38
        assert (np.abs(now - vector) <= rounding + left).all()
        before, left = now.astype(np.float64), rounding


@given(st.lists(arrays(np.float32, SIZE, elements=st.floats(-4, 4, width=32)), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_what_was_meant_and_what_arrived_differ_by_what_is_left_over(vectors: list[Vector]) -> None:
    """Summed exactly, over all that was sent: but for the float32 in which what is left over is kept."""
    has, _, rounding = sent(vectors)
    for place in range(SIZE):
        missing = sum(
            (Fraction(float(vector[place])) - Fraction(float(now[place])))
            for vector, now in zip(vectors, has, strict=True)
        )
        assert abs(float(missing) - rounding.left[place]) <= len(vectors) * 2.0**-30
        assert abs(rounding.left[place]) <= 2.0**-11 * 8.01 + 2.0**-22


@given(arrays(np.float32, SIZE, elements=st.floats(-4, 4, width=32)))
@settings(max_examples=100, deadline=None)
def test_a_vector_that_rests_is_known_to_its_last_bits(vector: Vector) -> None:
    has, _, rounding = sent([vector] * 12)
    np.testing.assert_allclose(has[-1], vector, rtol=0, atol=2.0**-22)
    np.testing.assert_allclose(rounding.left, 0, atol=2.0**-22)


def test_both_sides_have_the_same_bits_where_the_message_went_through_bytes() -> None:
    draw = np.random.default_rng(0)
    size = 40_000  # more than are halved at a time
    rounding, here, there = Rounding(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    vector = draw.normal(size=size).astype(np.float32)
    for _ in range(50):
        before = here
        vector += (draw.normal(size=size) * 10.0 ** draw.uniform(-9, 0, size)).astype(np.float32)
        moved = rounding.halved(vector, here)
        here = moved.added_to(here)
        numbers = np.frombuffer(moved.numbers.tobytes(), np.float16)
        there = Halves(numbers, moved.power).added_to(there)
        np.testing.assert_array_equal(here.view(np.uint32), there.view(np.uint32))
        assert np.abs(here - vector).max() <= 2.0**-9 * np.abs(vector - before).max()


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1.0, 65519.0, 65520.0, 1e20, 1e38])
def test_no_size_leaves_float16(size: float) -> None:
    vector = np.array([size, -size, size / 3, 0, size / 1000], np.float32)
    (has,), (moved,), _ = sent([vector])
    assert np.isfinite(moved.numbers).all()
    np.testing.assert_allclose(has, vector, rtol=2.0**-11, atol=2e-43 if size > 1e-40 else 1.0)


def test_what_is_no_number_arrives_as_such() -> None:
    vector = np.array([np.nan, np.inf, -np.inf, 1.0, 0.5], np.float32)
    (has,), _, _ = sent([vector])
    np.testing.assert_array_equal(has, vector)


def test_it_takes_half_the_bytes() -> None:
    vector = np.ones(1000, np.float32)
    moved = Rounding(1000, np.float32).halved(vector, np.zeros(1000, np.float32))
    assert moved.nbytes == vector.nbytes // 2


def test_what_is_left_over_is_scaled_as_duals_are() -> None:
    *_, rounding = sent([np.full(SIZE, 1.0001, np.float32)])
    before = rounding.left.copy()
    assert before.all()
    rounding.scale(0.5)
    np.testing.assert_array_equal(rounding.left, before / 2)
    rounding.scale(0.0)
    assert not rounding.left.any()
