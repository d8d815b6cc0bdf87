"""How a rule is declared: a decorator on its label function, which takes the operator's other facts as well."""

from collections.abc import Callable
from typing import Literal

from onnxadmm.operators.call import ShapeFunction
from onnxadmm.operators.table import Effect, Lookup, Moves, declare
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.visit import Visit

LabelFunction = Callable[[Visit], None]
RewriteFunction = Callable[[Edit], None]


def rule(
    *operators: str,
    domain: str = "",
    note: str,
    rewrite: RewriteFunction | None = None,
    keeps_zero: bool = False,
    effect: Effect = "exact",
    elementwise: bool = False,
    moves: Moves | None = None,
    pure: bool = True,
    draws: bool = False,
    computes_sizes: bool = False,
    windowed: bool = False,
    normalises: bool = False,
    quantises: bool = False,
    multiplies_bytes: tuple[int, int] | None = None,
    weights: tuple[int, ...] = (),
    vectors: tuple[int, ...] = (),
    statistics: tuple[int, ...] = (),
    indices: tuple[int, ...] = (),
    scales: bool = False,
    lookups: tuple[Lookup, ...] = (),
    gradient: Literal["engine", "zero"] | None = None,
    shape: ShapeFunction | None = None,
    shaped_like: tuple[str, tuple[int, ...]] | None = None,
) -> Callable[[LabelFunction], LabelFunction]:
    """Register a label function for some operators, and what else is known of them.

    The facts are attributes of ``onnxadmm.operators.table.Operator``, which describes them. Where operators share a
    label function and differ in a fact, the decorator stands once for each kind.

    Raises:
        ValueError: an operator has a rule already (a defect, found when the table is loaded).
    """

    def register(label: LabelFunction) -> LabelFunction:
        declare(
            *operators,
            domain=domain,
            label=label,
            note=note,
            rewrite=rewrite,
            keeps_zero=keeps_zero,
            effect=effect,
            elementwise=elementwise,
            moves=moves,
            pure=pure,
            draws=draws,
            computes_sizes=computes_sizes,
            windowed=windowed,
            normalises=normalises,
            quantises=quantises,
            multiplies_bytes=multiplies_bytes,
            weights=weights,
            vectors=vectors,
            statistics=statistics,
            indices=indices,
            scales=scales,
            lookups=lookups,
            gradient=gradient,
            shape=shape,
            shaped_like=shaped_like,
        )
        return label

    return register
