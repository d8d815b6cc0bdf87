"""The rule table: every fact the package holds about an operator.

A rule is registered by decorating its label function; the same decorator takes the operator's other
facts. One operator, one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from onnxadmm.rules.edit import Edit
    from onnxadmm.rules.visit import Visit

LabelFunction = Callable[["Visit"], None]
RewriteFunction = Callable[["Edit"], None]
Effect = Literal["exact", "locks", "inexact"]


@dataclass(frozen=True)
class Rule:
    """What is known of one operator.

    Attributes:
        operator: the operator's name, e.g. ``"Conv"``.
        domain: its domain; ``""`` is the default domain.
        label: says which positions of its operands and results are tied or locked.
        rewrite: adapts attributes and constant operands after removal; None when nothing names a size.
        keeps_zero: zero in gives zero out at the same position, so that a weight behind this operator can
            be zeroed at its origin.
        effect: what becomes of an axis that it works along: ``"exact"``, it may shrink and nothing else changes;
            ``"locks"``, it stays; ``"inexact"``, it stays unless inexact pruning is wanted.
        note: one line for the operator table of the documentation.
    """

    operator: str
    domain: str
    label: LabelFunction
    rewrite: RewriteFunction | None
    keeps_zero: bool
    effect: Effect
    note: str


_TABLE: dict[tuple[str, str], Rule] = {}


def rule(
    *operators: str,
    domain: str = "",
    rewrite: RewriteFunction | None = None,
    keeps_zero: bool = False,
    effect: Effect = "exact",
    note: str,
) -> Callable[[LabelFunction], LabelFunction]:
    """Register a label function for some operators.

    Raises:
        ValueError: an operator has a rule already (a defect, found at import).
    """

    def register(label: LabelFunction) -> LabelFunction:
        for operator in operators:
            key = (domain, operator)
            if key in _TABLE:
                raise ValueError(f"two rules for {operator!r} of domain {domain!r}")
            _TABLE[key] = Rule(operator, domain, label, rewrite, keeps_zero, effect, note)
        return label

    return register


def find_rule(domain: str, operator: str) -> Rule | None:
    """Return the rule of an operator, or None; ``"ai.onnx"`` is another name of the default domain."""
    return _TABLE.get(("" if domain == "ai.onnx" else domain, operator))


def all_rules() -> Iterator[Rule]:
    """Yield every rule, ordered by domain and operator."""
    for key in sorted(_TABLE):
        yield _TABLE[key]
