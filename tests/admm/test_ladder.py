"""At which counts a group may end."""

import numpy as np
import pytest

from onnxadmm.admm.ladder import make_ladder
from onnxadmm.admm.problem import GateGroup


@pytest.mark.parametrize(
    ("least", "removed", "multiple", "levels"),
    [
        (1, 10, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (1, 10, 4, [1, 2, 3, 4, 8, 10]),
        (3, 10, 4, [3, 4, 8, 10]),
        (0, 10, 4, [0, 4, 8, 10]),
        (0, 10, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0, 7, 4, [3, 4, 8, 10]),
        (0, 10, 16, [0, 10]),
    ],
)
def test_a_group_ends_with_multiples_with_all_or_with_fewer_than_one(
    least: int, removed: int, multiple: int, levels: list[int]
) -> None:
    group = GateGroup("group", 0, 10, None, keep_at_least=least, keep_at_most_removed=removed, multiple=multiple)
    ladder = make_ladder(group, np.arange(10)[:, None])
    assert ladder.levels.tolist() == levels
    assert [kept for kept in range(11) if kept >= ladder.fewest and ladder.allowed(kept)] == levels
    assert [ladder.lower(kept) for kept in levels] == levels
