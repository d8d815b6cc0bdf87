"""Labels: one number for every position of an axis that could go, and which of them live and die together.

A union-find over int64 labels, vectorised: every call takes whole label arrays. Locks are kept at the
roots, so a tie spreads them; of several reasons the one given first is remembered.
"""

import numpy as np
from numpy.typing import NDArray

#: Of a whole model: a small file may describe axes of any length, and each position costs 17 bytes.
MOST_LABELS = 2**23

#: Of all axes together whose labels are kept, eight bytes for each position; short axes are not counted.
MOST_POSITIONS = 2**25
_WORTH_COUNTING = 2**12

LabelArray = NDArray[np.int64]

_UNLOCKED = np.iinfo(np.int64).max


class Labels:
    """Union-find over labels ``0 .. count - 1`` with locks.

    Invariant: a root is the smallest label of its set, so results do not depend on the order of ties.
    """

    def __init__(self) -> None:
        self._parent: LabelArray = np.arange(1024, dtype=np.int64)
        self._lock: LabelArray = np.full(1024, _UNLOCKED, dtype=np.int64)
        self._firm = np.zeros(1024, dtype=np.bool_)
        self._head = np.zeros(1024, dtype=np.bool_)
        self._reasons: list[str] = []
        self._count = 0
        self._kept: dict[int, LabelArray] = {}
        self._positions = 0

    @property
    def count(self) -> int:
        """How many labels there are."""
        return self._count

    def new(self, length: int) -> LabelArray:
        """Return ``length`` new, untied, unlocked labels: int64 ``[length]``.

        Raises:
            ValueError: that would be more than ``MOST_LABELS``.
        """
        if self._count + length > MOST_LABELS:
            raise ValueError(f"{length} more positions are too many to be followed")
        start, stop = self._count, self._count + length
        if stop > self._parent.size:
            size = max(stop, 2 * self._parent.size)
            self._parent = np.concatenate([self._parent, np.arange(self._parent.size, size, dtype=np.int64)])
            extra = size - self._lock.size
            self._lock = np.concatenate([self._lock, np.full(extra, _UNLOCKED, dtype=np.int64)])
            self._firm = np.concatenate([self._firm, np.zeros(extra, dtype=np.bool_)])
            self._head = np.concatenate([self._head, np.zeros(extra, dtype=np.bool_)])
        self._count = stop
        return np.arange(start, stop, dtype=np.int64)

    def count_positions(self, axis: LabelArray | None) -> None:
        """Count the positions of an axis whose labels are kept from now on; what was counted before is not again.

        Raises:
            ValueError: all axes together have more than ``MOST_POSITIONS``.
        """
        if axis is None or axis.size < _WORTH_COUNTING or id(axis) in self._kept:
            return
        if self._positions + axis.size > MOST_POSITIONS:
            raise ValueError("it comes after more positions than can be followed")
        self._kept[id(axis)] = axis
        self._positions += axis.size

    def new_locked(self, length: int, reason: str) -> LabelArray:
        """Return one new locked label, repeated ``length`` times: positions that stay."""
        label = self.new(1)
        self.lock(label, reason)
        return np.repeat(label, length)

    def roots(self, labels: LabelArray) -> LabelArray:
        """Return the smallest label of each label's set, in the shape of ``labels``."""
        found = self._parent[labels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[labels] = found
        return found

    def tie(self, first: LabelArray, second: LabelArray) -> None:
        """Make ``first[i]`` and ``second[i]`` live and die together, for every i of two equal shapes.

        Raises:
            ValueError: the shapes differ (a defect of a rule, never of a model).
        """
        if first.shape != second.shape:
            raise ValueError(f"cannot tie labels of shape {first.shape} to labels of shape {second.shape}")
        while True:
            left, right = self.roots(first), self.roots(second)
            differ = left != right
            if not differ.any():
                return
            low = np.minimum(left, right)[differ]
            high = np.maximum(left, right)[differ]
            # A root in several pairs takes its smallest partner now and meets the others in the next round.
            np.minimum.at(self._parent, high, low)
            np.minimum.at(self._lock, low, self._lock[high])
            np.logical_or.at(self._firm, low, self._firm[high])
            np.logical_or.at(self._head, low, self._head[high])

    def lock(self, labels: LabelArray, reason: str, *, firm: bool = True) -> None:
        """Make these positions stay, and say why.

        Args:
            firm: whether they stay whatever else goes; else nobody chooses them, and they may follow others.
        """
        if labels.size:
            self._reasons.append(reason)
            roots = self.roots(labels)
            np.minimum.at(self._lock, roots, len(self._reasons) - 1)
            if firm:
                self._firm[roots] = True

    def locked(self, labels: LabelArray) -> NDArray[np.bool_]:
        """Tell for each label whether its set is locked."""
        return np.asarray(self._lock[self.roots(labels)] != _UNLOCKED)

    def firm(self, labels: LabelArray) -> NDArray[np.bool_]:
        """Tell for each label whether its set is locked whatever else goes."""
        return np.asarray(self._firm[self.roots(labels)])

    def reason(self, label: int) -> str | None:
        """Return why this label's set is locked, or None."""
        index = int(self._lock[self.roots(np.asarray([label], dtype=np.int64))[0]])
        return None if index == _UNLOCKED else self._reasons[index]

    def mark_head(self, labels: LabelArray) -> None:
        """Remember that these positions are complete heads: the axis to prune where a reshape leaves a choice."""
        self._head[self.roots(labels)] = True

    def is_head(self, labels: LabelArray) -> bool:
        """Tell whether any of the labels was marked as a head."""
        return bool(self._head[self.roots(labels)].any())
