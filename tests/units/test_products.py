"""Sums of products of kept lengths, rounded up as a processor fills vectors."""

import numpy as np
import pytest

from onnxadmm.rules.facts import CostTerm
from onnxadmm.units.products import Products

TERM = CostTerm("layer", 3.0, (np.arange(5), np.arange(5, 25)))


@pytest.mark.parametrize(
    ("step", "lengths"),
    [(1, (2, 7)), (4, (4, 8)), (8, (5, 8)), (16, (5, 16)), (2**31, (5, 20))],
)
def test_lengths_are_rounded_up_but_not_above_what_they_are_with_all_units(step: int, lengths: tuple[int, int]) -> None:
    keep = np.zeros(25, np.bool_)
    keep[[0, 3, *range(5, 12)]] = True
    products = Products([TERM], 25, step=step)
    np.testing.assert_array_equal(products.lengths(keep), lengths)
    assert products.total(keep) == 3.0 * lengths[0] * lengths[1]
    np.testing.assert_allclose(products.marginal(keep), 3.0 * np.repeat(lengths[::-1], (5, 20)))


def test_nothing_is_left_of_what_has_no_length() -> None:
    keep = np.append(np.zeros(5, np.bool_), np.ones(20, np.bool_))
    assert all(Products([TERM], 25, step=step).total(keep) == 0.0 for step in (1, 8, 2**31))
