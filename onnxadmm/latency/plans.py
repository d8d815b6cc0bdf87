"""Plans to be measured, drawn so that they tell of all that may be chosen."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.ladder import Ladder, keep_counts, make_ladder
from onnxadmm.admm.problem import GateGroup

KeepArray = NDArray[np.bool_]
DoubleArray = NDArray[np.float64]

#: Share of its units that a group keeps on average in the smallest plan that is drawn, and in the largest.
_SHARES: Final = (0.15, 1.0)
#: Deviation of the logarithm of a group's share from that of its plan.
_SPREAD: Final = 0.4


def smallest(groups: Sequence[GateGroup], unit_count: int, *, scores: DoubleArray | None = None) -> KeepArray:
    """Return the plan that keeps the fewest units of every group: bool ``[unit_count]``.

    Args:
        scores: as for ``draw``.
    """
    ladders = _ladders(groups, scores)
    return keep_counts(unit_count, ladders, [ladder.fewest for ladder in ladders])


def draw(
    groups: Sequence[GateGroup], unit_count: int, *, count: int, seed: int, scores: DoubleArray | None = None
) -> list[KeepArray]:
    """Draw plans in which groups end at levels that they may end at.

    Plans are as small on average as the shares between ``_SHARES`` that are evenly spaced, in an order of their own, so
    that any part of them covers the range.

    Args:
        scores: which units stay longest, float64 ``[unit_count]``: where others follow them, only so do as many follow
            as follow what is chosen. None, as where nothing follows: only how many stay decides.
    """
    generator = np.random.default_rng(seed)
    ladders = _ladders(groups, scores)
    found = []
    for share in generator.permutation(np.linspace(*_SHARES, count)):
        shares = np.clip(share * np.exp(generator.normal(0.0, _SPREAD, len(ladders))), 0.0, 1.0)
        counts = [_level(ladder, float(each)) for ladder, each in zip(ladders, shares, strict=True)]
        found.append(keep_counts(unit_count, ladders, counts))
    return found


def _ladders(groups: Sequence[GateGroup], scores: DoubleArray | None) -> list[Ladder]:
    found = []
    for group in groups:
        members = [np.asarray(each) for each in group.members]
        if scores is not None:
            members = [each[np.argsort(scores[each], kind="stable")] for each in members]
        found.append(make_ladder(group, np.stack(members, axis=1)))
    return found


def _level(ladder: Ladder, share: float) -> int:
    return int(ladder.levels[np.argmin(np.abs(ladder.levels - share * len(ladder.steps)))])
