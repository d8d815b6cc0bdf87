"""Einsum: axes with the same letter are tied, contracted letters are read from a constant operand."""

from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Axis, LockNodeError, Operand, Visit


def parse(equation: str, operand_count: int) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result.

    ``"bij,bjk->bik"`` gives ``(["bij", "bjk"], "bik")``; without an arrow the result has the letters that occur once,
    in alphabetical order.

    Raises:
        LockNodeError: the equation has an ellipsis, a letter twice in one operand, or another number of operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in equation:
        raise LockNodeError("has an ellipsis in its equation")
    if len(terms) != operand_count or any(len(set(term)) != len(term) for term in [*terms, right]):
        raise LockNodeError("has an equation that takes diagonals")
    if not arrow:
        letters = "".join(terms)
        right = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return terms, right


@rule("Einsum", note="ties axes with the same letter; reads contracted letters from a constant, else they lock")
def einsum(visit: Visit) -> None:
    operands = visit.operands()
    terms, result = parse(visit.text("equation", ""), len(operands))
    sizes: dict[str, int] = {}
    found: dict[str, Axis] = {}
    for letter in dict.fromkeys("".join(terms)):
        holders = [
            (operand, term.index(letter)) for operand, term in zip(operands, terms, strict=True) if letter in term
        ]
        sizes[letter] = max(operand.shape[index] for operand, index in holders)
        holders = [(operand, index) for operand, index in holders if operand.shape[index] == sizes[letter]]
        found[letter] = _share(visit, holders) if letter in result else _contract(visit, holders)
    visit.give([found[letter] for letter in result])
    samples = visit.samples(visit.result_shape(), visit.node.outputs[0].name)
    order = [*result, *(letter for letter in sizes if letter not in result)]
    counts = [samples if index == 0 and result else sizes[letter] for index, letter in enumerate(order)]
    visit.multiply_accumulates(counts, [found[letter] for letter in order])


def _share(visit: Visit, holders: list[tuple[Operand, int]]) -> Axis:
    first, place = holders[0]
    axis = first.axes[place]
    for operand, index in holders[1:]:
        axis = visit.tie(axis, operand.axes[index], "joins it with positions that stay")
    return axis


def _contract(visit: Visit, holders: list[tuple[Operand, int]]) -> Axis:
    weights = [(operand, index) for operand, index in holders if operand.constant]
    if len(holders) < 2 or not weights or len(weights) == len(holders):
        for operand, index in holders:
            visit.lock(operand.axes[index], "sums over it without a constant weight")
        return None
    axis = _share(visit, holders)
    weight, place = weights[0]
    reading = weight.axes[place]
    if reading is not None:
        visit.read(weight, place, reading)
    return axis
