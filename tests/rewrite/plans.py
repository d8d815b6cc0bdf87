"""Random plans: which units stay, chosen as any pruner might choose, and as none would."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.units.units import Units
from onnxadmm.units.vanishing import may_vanish

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


def without_branches(model: Model, units: Units, *, seed: int) -> NDArray[np.bool_] | None:
    """Which units stay where some groups go altogether, all that may with an even seed; None where none may."""
    random, keep = np.random.default_rng(seed), random_keep(units, seed=seed)
    vanishing = may_vanish(model, units)
    groups = [group for group in units.groups if group.start in vanishing]
    for group in groups:
        if seed % 2 == 0 or group is groups[0] or random.random() < 0.5:
            keep[group.start : group.start + group.count] = False
    return keep if groups else None
