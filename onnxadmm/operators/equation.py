"""The equation of an Einsum: what the axes of its operands and of its result are called."""

from collections.abc import Sequence
from typing import NamedTuple

#: What stands in an equation for any number of axes.
_ELLIPSIS = "..."


class Equation(NamedTuple):
    """An equation with every axis named.

    Attributes:
        operands: names of the axes of each operand: letters, and numbers for those that an ellipsis stands for.
        result: names of the axes of the result.
    """

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]

    @property
    def takes_diagonals(self) -> bool:
        """Whether an operand, or the result, has a name twice."""
        return any(len(set(axes)) != len(axes) for axes in (*self.operands, self.result))


def parse_equation(text: str, ranks: Sequence[int]) -> Equation | None:
    """Read an equation for operands of so many axes.

    ``"bij,bjk->bik"`` is ``((b, i, j), (b, j, k)) -> (b, i, k)``, and ``"...ij,jk->...ik"`` of four and two axes
    ``((0, 1, i, j), (j, k)) -> (0, 1, i, k)``: axes of an ellipsis are numbered from the last, so that operands with
    fewer of them are broadcast. Without an arrow the result has the axes of the ellipsis first, then the letters that
    occur once, capitals before small ones.

    Returns:
        The names; None where operands or their axes are not as many as the equation has.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    widths = [rank - len(term.replace(_ELLIPSIS, "")) for term, rank in zip(terms, ranks, strict=True)]
    if any(width < 0 or (width > 0 and _ELLIPSIS not in term) for width, term in zip(widths, terms, strict=True)):
        return None
    most = max(widths)
    operands = tuple(_names(term, width, most) for term, width in zip(terms, widths, strict=True))
    if arrow:
        return Equation(operands, _names(right, most, most))
    once = sorted(letter for letter in left if letter.isalpha() and left.count(letter) == 1)
    return Equation(operands, (*_names(_ELLIPSIS, most, most), *once))


def _names(term: str, width: int, most: int) -> tuple[str, ...]:
    before, dots, after = term.partition(_ELLIPSIS)
    return (*before, *(str(number) for number in range(most - width, most) if dots), *after)
