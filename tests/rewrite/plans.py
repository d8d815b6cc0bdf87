"""Random plans: which units stay, chosen as any pruner might choose, and as none would."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.units.units import Units

KINDS = ("random", "one stays", "one goes", "first stays", "last stays")


def random_keep(units: Units, *, seed: int, kind: str = "random") -> NDArray[np.bool_]:
    """Which units stay: bool ``[units.count]``; at least one per block of every group, and equally many.

    Args:
        units: the units of a model.
        seed: of the choice.
        kind: ``random`` draws the number that stays, ``one stays`` and ``one goes`` are its ends (per block), and
            ``first stays`` / ``last stays`` keep a run at one end of every block, so that positions move.
    """
    random = np.random.default_rng(seed)
    keep = np.zeros(units.count, np.bool_)
    for group in units.groups:
        size = group.count // group.block_count
        stays = {"one stays": 1, "one goes": max(size - 1, 1)}.get(kind, int(random.integers(1, size + 1)))
        for inside in group.members:
            order = {"first stays": inside, "last stays": inside[::-1]}.get(kind, random.permutation(inside))
            keep[order[:stays]] = True
    return keep
