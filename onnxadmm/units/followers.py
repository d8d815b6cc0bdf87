"""Units that nobody chooses, since they follow others: a channel goes with the last of its columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import KeepArray
from onnxadmm.rules.facts import Facts
from onnxadmm.rules.labels import LabelArray


def _none() -> LabelArray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Followers:
    """Units that stay while any of those that they follow does; they are numbered behind all that are chosen.

    Attributes:
        groups: name and how many of its units follow, in the order of the numbers.
        alone: for each group, whether none of its units stays whatever goes: the first then does, as no axis may be
            empty.
        leaders, followers: pairs of a unit and a follower of it, which is counted from 0: int64 ``[pairs]`` each.
    """

    groups: tuple[tuple[str, int], ...] = ()
    alone: tuple[bool, ...] = ()
    leaders: LabelArray = field(default_factory=_none)
    followers: LabelArray = field(default_factory=_none)

    @property
    def count(self) -> int:
        """How many units follow."""
        return sum(count for _, count in self.groups)

    def stay(self, keep: KeepArray) -> KeepArray:
        """Return which followers stay when the units of ``keep`` do: bool ``[count]``."""
        stay = np.zeros(self.count, np.bool_)
        stay[self.followers[keep[self.leaders]]] = True
        for inside, alone in zip(self._slices, self.alone, strict=True):
            if alone and not stay[inside].any():
                stay[inside.start] = True
        return stay

    def with_them(self, keep: KeepArray) -> KeepArray:
        """Return ``keep`` and behind it which followers stay."""
        return np.append(keep, self.stay(keep)) if self.groups else keep

    def gone(self, keep: KeepArray) -> dict[str, int]:
        """Return by group how many of its units follow those that go, where any do."""
        stay = self.stay(keep)
        found = {name: int((~stay[inside]).sum()) for (name, _), inside in zip(self.groups, self._slices, strict=True)}
        return {name: count for name, count in found.items() if count}

    @property
    def _slices(self) -> list[slice]:
        """The numbers of each group among the followers."""
        ends = accumulate(count for _, count in self.groups)
        return [slice(end - count, end) for (_, count), end in zip(self.groups, ends, strict=True)]

    @property
    def is_plain(self) -> bool:
        """Whether ``spread`` is exact: followers of one group alone, of which no unit leads two."""
        return len(self.groups) <= 1 and np.unique(self.leaders).size == self.leaders.size

    def spread(self, count: int) -> NDArray[np.float64]:
        """Return a score of the ``count`` units by which those that stay keep as many followers as so many can.

        It falls from the first unit of each follower to the last: float64 ``[count]``, not negative, 0 where nothing
        follows. Where ``is_plain`` does not hold, others may keep more.
        """
        found = np.zeros(count)
        order = np.lexsort((self.leaders, self.followers))
        followers = self.followers[order]
        places = np.arange(order.size) - np.searchsorted(followers, followers)
        np.maximum.at(found, self.leaders[order], order.size - places)
        return found

    def marginal(self, keep: KeepArray, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each unit adds, with the followers that stay for it alone: float64 ``[units]``.

        Args:
            keep: which units stay.
            costs: what each unit and each follower adds by itself: float64 ``[units + count]``.
        """
        found = costs[: keep.size].copy()
        stay = np.bincount(self.followers, keep[self.leaders], self.count)
        only = stay[self.followers] - keep[self.leaders] == 0
        # Of a group that would be empty otherwise the first stays for nothing: the first that is led costs no more.
        group = np.repeat(np.arange(len(self.groups)), [count for _, count in self.groups])
        led = np.bincount(group, stay > 0, len(self.groups))[group[self.followers]] - (only & keep[self.leaders])
        only &= ~(np.array(self.alone, np.bool_)[group[self.followers]] & (led == 0))
        np.add.at(found, self.leaders[only], costs[keep.size + self.followers[only]])
        return found


def following(facts: Facts) -> LabelArray:
    """Return the roots that nothing keeps but their columns: int64, ascending.

    They are locked for their columns' sake alone, no weight or sum reads them, and nothing mixes along them.
    """
    seen = [read.labels for read in facts.reads] + [read.labels for read in facts.activation_reads]
    seen += [axis for _, axis in facts.inexact]
    picked = np.unique(np.concatenate([_none(), *(_roots(facts, columns.picked) for columns in facts.columns)]))
    read = np.concatenate([_none(), *(_roots(facts, labels) for labels in seen)])
    return picked[~np.isin(picked, read) & ~facts.labels.firm(picked)]


def number_followers(
    facts: Facts, units: LabelArray, groups: Sequence[tuple[str, LabelArray, bool]]
) -> tuple[Followers, LabelArray]:
    """Number the units that follow others, behind those that are chosen.

    Args:
        facts: of the model.
        units: number of each root that is chosen, -1 for the others: int64 ``[labels]``.
        groups: name, roots as ``following`` gives them, and whether the rest of the group is empty.

    Returns:
        The followers, and ``units`` with their numbers.
    """
    start = int(units.max(initial=-1)) + 1
    number = np.full(units.size, -1, dtype=np.int64)  # of each root among the followers
    names: list[tuple[str, int]] = []
    alone: list[bool] = []
    count = 0
    leaders, tied = _pairs(facts)
    for name, roots, is_alone in groups:
        stays = np.unique(tied[units[leaders] < 0])  # one of their columns stays
        going = roots[~np.isin(roots, stays)]
        if going.size:
            number[going] = np.arange(count, count + going.size)
            names.append((name, int(going.size)))
            alone.append(is_alone and going.size == roots.size)
            count += going.size
    inside = number[tied] >= 0
    followers = Followers(tuple(names), tuple(alone), units[leaders[inside]], number[tied[inside]])
    return followers, np.where(number >= 0, start + number, units)


def _pairs(facts: Facts) -> tuple[LabelArray, LabelArray]:
    """Return the roots of all columns that have a channel, and of their channels."""
    known = [each for each in facts.columns if each.picked is not None]
    own = np.concatenate([_none(), *(_roots(facts, each.labels) for each in known)])
    return own, np.concatenate([_none(), *(_roots(facts, each.picked) for each in known)])


def _roots(facts: Facts, labels: LabelArray | None) -> LabelArray:
    return _none() if labels is None else facts.labels.roots(labels.reshape(-1))
