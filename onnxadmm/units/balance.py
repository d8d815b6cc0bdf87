"""Grouped convolutions: every block must keep equally many channels.

Where the channels of all blocks are units of one group, free of other ties, the plan keeps the balance.
Otherwise the blocks are tied to each other, which is coarser and always right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxadmm.rules.facts import Facts
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.occupancy import Occupancy, find_occupancy
from onnxadmm.units.origins import Origin


@dataclass(frozen=True)
class Blocks:
    """A partition of the units of one group; ``key`` is the group's smallest root."""

    key: int
    roots: LabelArray
    numbers: LabelArray

    def of(self, members: LabelArray) -> LabelArray:
        """Return the block number of each root."""
        return self.numbers[np.searchsorted(self.roots, members)]


def settle_balances(facts: Facts, origins: Sequence[Origin]) -> list[Blocks]:
    """Return the partitions that plans must keep; tie the blocks of those that no plan could keep."""
    while True:
        occupancy = find_occupancy(facts, origins)
        found: dict[int, Blocks] = {}
        tied = False
        for _, matrix in facts.balances:
            rows = facts.labels.roots(matrix)
            if (rows == rows[0]).all():
                continue
            blocks = _free(facts, occupancy, rows)
            known = None if blocks is None else found.setdefault(blocks.key, blocks)
            if blocks is None or known is None or not np.array_equal(known.numbers, blocks.numbers):
                for row in rows[1:]:
                    facts.labels.tie(rows[0], row)
                tied = True
        if not tied:
            return list(found.values())


def _free(facts: Facts, occupancy: Occupancy, rows: LabelArray) -> Blocks | None:
    """Return the partition when the rows are exactly the units of one unlocked group."""
    members = np.unique(rows)
    if members.size != rows.size or facts.labels.locked(members).any():
        return None
    index = np.searchsorted(occupancy.roots, members)
    if (index >= occupancy.roots.size).any() or (occupancy.roots[index] != members).any():
        return None
    key = occupancy.keys[index[0]]
    if (occupancy.keys[index] != key).any() or np.count_nonzero(occupancy.keys == key) != members.size:
        return None
    numbers = np.empty(members.size, dtype=np.int64)
    for number, row in enumerate(rows[np.argsort(rows.min(axis=1))]):
        numbers[np.searchsorted(members, row)] = number
    return Blocks(int(members[0]), members, numbers)
