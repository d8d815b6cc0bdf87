"""Plans that are measured: at levels that groups may end at, from the smallest to the whole."""

import numpy as np

from onnxadmm.admm.problem import GateGroup
from onnxadmm.latency.plans import draw, smallest

GROUPS = (
    GateGroup(name="a", start=0, count=64, keep_at_least=1, keep_at_most_removed=64, multiple=16, blocks=None),
    GateGroup(name="b", start=64, count=40, keep_at_least=8, keep_at_most_removed=40, multiple=8, blocks=None),
)


def counts(keep):
    return [int(keep[group.start :][: group.count].sum()) for group in GROUPS]


def test_every_plan_ends_where_groups_may():
    for keep in draw(GROUPS, 104, count=40, seed=0):
        first, second = counts(keep)
        assert first < 16 or first % 16 == 0
        assert second % 8 == 0
        assert second >= 8


def test_plans_cover_the_range_and_differ_by_seed():
    sizes = [sum(counts(keep)) for keep in draw(GROUPS, 104, count=40, seed=0)]
    assert min(sizes) < 30
    assert max(sizes) > 90
    assert len(set(sizes)) > 10
    assert sizes != [sum(counts(keep)) for keep in draw(GROUPS, 104, count=40, seed=1)]
    assert sizes == [sum(counts(keep)) for keep in draw(GROUPS, 104, count=40, seed=0)]


def test_the_smallest_keeps_as_few_as_may_stay():
    assert counts(smallest(GROUPS, 104)) == [1, 8]


def test_units_that_others_follow_stay_longest():
    scores = np.arange(104, dtype=np.float64) % 7
    for keep in [smallest(GROUPS, 104, scores=scores), *draw(GROUPS, 104, count=20, seed=0, scores=scores)]:
        for group in GROUPS:
            for members in group.members:
                stay, go = scores[members][keep[members]], scores[members][~keep[members]]
                assert not go.size or stay.min() >= go.max()
