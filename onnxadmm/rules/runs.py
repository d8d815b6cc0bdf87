"""Runs of axes that a reshape turns into each other."""

from collections.abc import Sequence
from math import prod

from onnxadmm.rules.node import LockNodeError

Run = tuple[list[int], list[int]]


def runs(before: Sequence[int], after: Sequence[int]) -> list[Run]:
    """Cut two shapes of equal size into the shortest runs of axes with equal products; axes of size one are left out.

    ``(2, 3, 4, 5)`` and ``(2, 12, 5)`` give ``[([0], [0]), ([1, 2], [1]), ([3], [2])]``.

    Raises:
        LockNodeError: the shapes hold no positions or differ in size.
    """
    if prod(before) != prod(after) or prod(before) == 0:
        raise LockNodeError("reshapes a size that is not known")
    sources = [index for index, size in enumerate(before) if size > 1]
    targets = [index for index, size in enumerate(after) if size > 1]
    found: list[Run] = []
    while sources and targets:
        left, right = [sources.pop(0)], [targets.pop(0)]
        left_size, right_size = before[left[0]], after[right[0]]
        while left_size != right_size:
            if left_size < right_size:
                left.append(sources.pop(0))
                left_size *= before[left[-1]]
            else:
                right.append(targets.pop(0))
                right_size *= after[right[-1]]
        found.append((left, right))
    return found
