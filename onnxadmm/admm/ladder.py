"""How far each group may go down: its removal steps, and how many of them it may end with.

A *removal step* of a group takes one unit, or one unit of every block where blocks must stay equal. What is counted
are kept steps: ``kept * blocks`` units stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxadmm.admm.problem import GateGroup, KeepArray, UnitArray
from onnxadmm.errors import OptionError


@dataclass(frozen=True)
class Ladder:
    """The removal steps of one group.

    Attributes:
        steps: units in the order in which they go, int64 ``[steps, blocks]``; the first row goes first.
        fewest: fewest steps that stay by the limits of the group, itself allowed.
        multiple: kept counts of units of at least this many are multiples of it, unless the whole group stays. Where
            all may go, so are the others: fewer take the time of one multiple, and none takes none.
    """

    steps: UnitArray
    fewest: int
    multiple: int

    def allowed(self, kept: int) -> bool:
        """Whether the group may end with ``kept`` steps: some multiples, or all, or if one must stay less than one."""
        units = kept * int(self.steps.shape[1])
        return units < self._loose or units % self.multiple == 0 or kept == len(self.steps)

    @property
    def _loose(self) -> int:
        """Number of units below which any count will do."""
        return self.multiple if self.fewest else 0

    def lower(self, kept: int) -> int:
        """Largest allowed count that is at most ``kept``, but not below ``fewest``."""
        while kept > self.fewest and not self.allowed(kept):
            kept -= 1
        return max(kept, self.fewest)

    @cached_property
    def levels(self) -> UnitArray:
        """Every count of steps that the group may end with, ascending: int64 ``[levels]``."""
        kept = np.arange(self.fewest, len(self.steps) + 1, dtype=np.int64)
        units = kept * self.steps.shape[1]
        levels: UnitArray = kept[(units < self._loose) | (units % self.multiple == 0) | (kept == len(self.steps))]
        return levels


def make_ladder(group: GateGroup, steps: UnitArray) -> Ladder:
    """Return the ladder of a group whose units go in the order of ``steps``, int64 ``[steps, blocks]``.

    Raises:
        OptionError: the steps are not the units of the group, one of each block in every row.
    """
    blocks = group.members
    if steps.shape != (len(blocks[0]), len(blocks)) or any(
        not np.array_equal(np.sort(column), members) for column, members in zip(steps.T, blocks, strict=False)
    ):
        raise OptionError(
            f"group {group.name}",
            expected=f"all of its units, in steps that take one of each of its {len(blocks)} blocks",
            found=f"steps of shape {list(steps.shape)} for blocks of {sorted({len(block) for block in blocks})}",
            way_out="order every unit of the group once",
        )
    size, width = steps.shape
    fewest = min(size, max(group.keep_at_least, size - max(0, group.keep_at_most_removed) // width))
    ladder = Ladder(steps=steps, fewest=fewest, multiple=max(1, group.multiple))
    while not ladder.allowed(fewest):
        fewest += 1
    return Ladder(steps=steps, fewest=fewest, multiple=ladder.multiple)


def keep_counts(unit_count: int, ladders: Sequence[Ladder], kept: Sequence[int]) -> KeepArray:
    """Return which units stay when each group keeps so many of its last steps: bool ``[unit_count]``."""
    keep = np.ones(unit_count, dtype=np.bool_)
    for ladder, count in zip(ladders, kept, strict=True):
        keep[ladder.steps[: ladder.steps.shape[0] - count]] = False
    return keep
