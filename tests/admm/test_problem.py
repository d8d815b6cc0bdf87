"""Ranges of units and readers: how they number their blocks; what of a network a budget leaves."""

import numpy as np
import pytest

from onnxadmm.admm.problem import Problem, Reader, UnitRange
from tests.admm.tiny import ChainCost


def test_free_units_are_one_block():
    free = UnitRange("free", 5, 3, None)
    assert free.block_count == 1
    np.testing.assert_array_equal(free.block_numbers, [0, 0, 0])
    np.testing.assert_array_equal(free.members, [[5, 6, 7]])


def test_members_of_blocks_are_numbered_as_in_the_problem_and_ascend():
    mixed = UnitRange("mixed", 10, 6, np.array([1, 0, 1, 2, 0, 2]))
    assert mixed.block_count == 3
    np.testing.assert_array_equal(mixed.block_numbers, [1, 0, 1, 2, 0, 2])
    np.testing.assert_array_equal(mixed.members, [[11, 14], [10, 12], [13, 15]])


@pytest.mark.parametrize(("units", "count"), [([0, 1, 2], 1), ([[0, 1, 2]], 1), ([[0, 1], [2, 3]], 2)])
def test_a_reader_has_a_block_for_each_row_of_its_units(units, count):
    assert Reader("weight", 1, np.array(units)).block_count == count


@pytest.mark.parametrize(
    ("budget", "connections", "left"),
    [(8.0, 1.0, 1.0), (9.0, 1.0, 1.0), (2.0, 1.0, 0.25), (2.0, 0.5, 0.125), (9.0, 0.5, 0.5)],
)
def test_what_may_stay_is_a_share_of_the_units_and_of_their_connections(
    budget: float, connections: float, left: float
) -> None:
    problem = Problem(8, (), (), ChainCost(inputs=1, sizes=(8,), outputs=0), budget, (), connections)
    assert problem.dense == 8
    assert problem.left == left
