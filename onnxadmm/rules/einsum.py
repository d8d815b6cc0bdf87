"""Einsum: axes with the same letter are tied; contracted letters are read from a constant operand, or by the sum."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxadmm.operators.equation import parse_equation
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit


@dataclass(frozen=True)
class _Holder:
    """An operand, and the index of its axis with some letter."""

    operand: Operand
    index: int

    @property
    def size(self) -> int:
        return self.operand.shape[self.index]

    @property
    def labels(self) -> Axis:
        return self.operand.axes[self.index]


@rule(
    "Einsum", weights=(0, 1, 2, 3),
    note="ties axes with the same letter; reads contracted letters from a constant, or sums them up",
)  # fmt: skip
def einsum(visit: Visit) -> None:
    operands = visit.operands()
    equation = parse_equation(visit.text("equation", ""), [len(operand.shape) for operand in operands])
    if equation is None or equation.takes_diagonals:
        raise LockNodeError("has an equation that takes diagonals")
    terms, result = equation
    sizes: dict[str, int] = {}
    found: dict[str, Axis] = {}
    for letter in dict.fromkeys(letter for term in terms for letter in term):
        holders = [
            _Holder(operand, term.index(letter))
            for operand, term in zip(operands, terms, strict=True)
            if letter in term
        ]
        sizes[letter] = max(holder.size for holder in holders)
        holders = [holder for holder in holders if holder.size == sizes[letter]]
        found[letter] = _share(visit, holders) if letter in result else _contract(visit, holders)
        if letter in result and sum(not holder.operand.constant for holder in holders) > 1:
            visit.mark_head(found[letter])
    visit.set_result([found[letter] for letter in result])
    samples = visit.rows_per_sample()
    order = [*result, *(letter for letter in sizes if letter not in result)]
    counts = [samples if index == 0 and result else sizes[letter] for index, letter in enumerate(order)]
    visit.add_macs(counts, [found[letter] for letter in order])


def _share(visit: Visit, holders: Sequence[_Holder]) -> Axis:
    axis = holders[0].labels
    for holder in holders[1:]:
        axis = visit.tie(axis, holder.labels, "joins it with positions that stay")
    return axis


def _contract(visit: Visit, holders: Sequence[_Holder]) -> Axis:
    weights = [holder for holder in holders if holder.operand.constant]
    if len(weights) == len(holders):
        for holder in holders:
            visit.lock(holder.labels, "sums over it without an activation")
        return None
    axis = _share(visit, holders)
    if not weights:
        visit.mark_summed(holders[0].operand, holders[0].index)
    else:
        visit.mark_reader(weights[0].operand, weights[0].index)
    return axis
