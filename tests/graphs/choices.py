"""Where the graph generator's decisions come from: a seeded generator, or hypothesis, which can shrink them."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

OptionType = TypeVar("OptionType")


class Choices(ABC):
    """A stream of decisions. The smallest answer is always the simplest one, so that shrinking simplifies."""

    @abstractmethod
    def integer(self, low: int, high: int) -> int:
        """An integer in ``low .. high``, both included."""

    def pick(self, options: Sequence[OptionType]) -> OptionType:
        """One of ``options``; the first is the simplest."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """True about ``percent`` times in a hundred; False is the simpler answer."""
        return self.integer(0, 99) >= 100 - percent

    def weighted(self, options: Sequence[tuple[int, OptionType]]) -> OptionType:
        """One of the options, each as often as its weight says."""
        ticket = self.integer(0, sum(weight for weight, _ in options) - 1)
        for weight, option in options:
            if ticket < weight:
                return option
            ticket -= weight
        raise AssertionError("weights do not add up")


class SeededChoices(Choices):
    """The same decisions for the same seed, on every machine."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class DrawnChoices(Choices):
    """Decisions drawn from hypothesis."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))
