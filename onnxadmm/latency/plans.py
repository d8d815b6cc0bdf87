"""Plans to be measured, drawn so that they tell of all that may be chosen."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.ladder import Ladder, keep_counts, make_ladder
from onnxadmm.admm.problem import GateGroup

KeepArray = NDArray[np.bool_]

#: Share of its units that a group keeps on average in the smallest plan that is drawn, and in the largest.
_SHARES: Final = (0.15, 1.0)
#: Deviation of the logarithm of a group's share from that of its plan.
_SPREAD: Final = 0.4


def smallest(groups: Sequence[GateGroup], unit_count: int) -> KeepArray:
    """Return the plan that keeps the fewest units of every group: bool ``[unit_count]``."""
    ladders = _ladders(groups)
    return keep_counts(unit_count, ladders, [ladder.fewest for ladder in ladders])


def draw(groups: Sequence[GateGroup], unit_count: int, *, count: int, seed: int) -> list[KeepArray]:
    """Draw plans in which groups end at levels that they may end at.

    Plans are as small on average as the shares between ``_SHARES`` that are evenly spaced, in an order of their own, so
    that any part of them covers the range.
    """
    generator = np.random.default_rng(seed)
    ladders = _ladders(groups)
    found = []
    for share in generator.permutation(np.linspace(*_SHARES, count)):
        shares = np.clip(share * np.exp(generator.normal(0.0, _SPREAD, len(ladders))), 0.0, 1.0)
        counts = [_level(ladder, float(each)) for ladder, each in zip(ladders, shares, strict=True)]
        found.append(keep_counts(unit_count, ladders, counts))
    return found


def _ladders(groups: Sequence[GateGroup]) -> list[Ladder]:
    # Which units stay decides nothing here, only how many.
    return [
        make_ladder(group, np.stack([np.asarray(members) for members in group.members], axis=1)) for group in groups
    ]


def _level(ladder: Ladder, share: float) -> int:
    return int(ladder.levels[np.argmin(np.abs(ladder.levels - share * len(ladder.steps)))])
