"""What is known of an operator, in one entry: what it is, its labels, shape, lowering and gradient.

Entries are declared beside the functions they name, by ``onnxadmm.rules.table.rule``,
``onnxadmm.train.lowering.writer.lowers`` and ``onnxadmm.train.gradients.writer.differentiates``. The modules that
declare lie above this one and are loaded when the table is first asked: it is the one place where an import runs
upwards.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

#: How an operator moves elements: ``"view"``, all of them in their order; ``"order"``, all in another order or type, or
#: negated; ``"repeat"``, some several times; ``"pick"``, some of them, or those of several operands.
Moves = Literal["view", "order", "repeat", "pick"]
Effect = Literal["exact", "locks", "inexact"]


@dataclass(frozen=True)
class Lookup:
    """An operand that holds indices into another.

    Attributes:
        index: the operand with the indices.
        table: the operand that they count positions of.
        along: what they count: ``"axis"``, positions of the axis that the attribute ``axis`` names; ``"rows"``, of the
            first axis; ``"leading"``, tuples over the leading axes; ``"value"``, the operand ``table`` is their number.
    """

    index: int
    table: int
    along: Literal["axis", "rows", "leading", "value"]


@dataclass(frozen=True)
class Operator:
    """One operator of one domain. Indices count operands from 0.

    What it is:

    Attributes:
        name: as in ``op_type``, e.g. ``"Conv"``.
        domain: ``""`` is the default domain.
        elementwise: every element of the result comes from the elements at its place, after broadcasting.
        moves: the elements of its data (operand 0; of Concat every operand) come out unchanged, up to type and sign;
            the other operands say which go where.
        pure: the result depends on the operands alone and is a tensor; not so random numbers and control flow.
        draws: it draws at random while running; Dropout only in training mode.
        computes_sizes: beside moves and element-wise operators one that shapes and constants are made with.
        windowed: a window slides over its spatial axes, by the attributes strides, dilations, pads and auto_pad.
        normalises: brings its data to a common mean, deviation or norm.
        quantises: goes to or from numbers of eight bits.
        multiplies_bytes: it adds up products of numbers of eight bits: where the second factor stands, and its zero
            point.

    What its operands are:

        weights: weights of a layer, or the table of a lookup.
        vectors: one number per channel beside a weight or an activation: biases, scales, shifts.
        statistics: one number per channel that is measured and not trained.
        indices: sizes, indices, limits: no gradient flows to them.
        scales: it adds, or multiplies by, its other operand: a constant there trains behind a layer.
        lookups: operands with indices into others.

    What the rules say of it:

        label: says which positions of its operands and results live and die together, or stay; None without a rule.
        rewrite: adapts attributes and constant operands after removal; None when nothing names a size.
        keeps_zero: zero in gives zero out at the same position, so that a weight behind it is zeroed at its origin.
        effect: what becomes of an axis that it works along: ``"exact"``, it may shrink and nothing else changes;
            ``"locks"``, it stays; ``"inexact"``, it stays unless inexact pruning is wanted.
        note: one line for the operator table of the documentation.

    What inference and training need:

        shape: types and shapes of the results of an operator that ONNX does not know, see ``onnxadmm.operators.call``.
        shaped_like: an operator of the default domain and the operands of this one that give its result the same shape.
        gradient: ``"engine"``, the training engine has one; ``"zero"``, the results carry none whatever they are
            computed from; a function that writes it; None, it has none itself (a lowering may).
        backward: beside ``"engine"``, writes the same gradient in operators of ONNX, for machines without that engine.
        refuses: finds a form of it that the engine differentiates wrongly or not at all, and names it.
        lowering: writes a node in operators that have a gradient.
    """

    name: str
    domain: str = ""
    elementwise: bool = False
    moves: Moves | None = None
    pure: bool = True
    draws: bool = False
    computes_sizes: bool = False
    windowed: bool = False
    normalises: bool = False
    quantises: bool = False
    multiplies_bytes: tuple[int, int] | None = None
    weights: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()
    statistics: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    scales: bool = False
    lookups: tuple[Lookup, ...] = ()
    label: Callable[[Any], None] | None = None
    rewrite: Callable[[Any], None] | None = None
    keeps_zero: bool = False
    effect: Effect = "exact"
    note: str = ""
    shape: Callable[[Any], Any] | None = None
    shaped_like: tuple[str, tuple[int, ...]] | None = None
    gradient: Literal["engine", "zero"] | Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None
    refuses: Callable[..., Any] | None = None
    lowering: Callable[..., Any] | None = None

    @property
    def is_layer(self) -> bool:
        """Whether it computes with a weight; looking rows up in a table is no layer."""
        return bool(self.weights) and self.moves is None

    @property
    def folds(self) -> bool:
        """Whether shapes and constants are made with it."""
        return self.pure and (self.elementwise or self.moves is not None or self.computes_sizes)

    def data_count(self, operands: int) -> int:
        """How many of a node's operands, from the first on, an operator that moves takes elements from."""
        return operands if self.name == "Concat" else 1


#: Rooms whose modules declare operators.
DECLARING = ("onnxadmm.rules", "onnxadmm.train.lowering", "onnxadmm.train.gradients")
_DEFAULTS = {field.name: field.default for field in fields(Operator)}
_TABLE: dict[tuple[str, str], Operator] = {}
_UNKNOWN = Operator("")
_loading = {"done": False}


def declare(*names: str, domain: str = "", **known: Any) -> None:
    """State facts of some operators: attributes of ``Operator`` by their names; an entry is made up of several.

    Raises:
        ValueError: a fact is stated a second time (a defect, found when the table is loaded).
    """
    for name in names:
        entry = _TABLE.get((domain, name), Operator(name, domain))
        stated = {fact: value for fact, value in known.items() if value != _DEFAULTS[fact]}
        twice = [fact for fact in stated if getattr(entry, fact) != _DEFAULTS[fact]]
        if twice:
            raise ValueError(f"{twice[0]} of {name!r} of domain {domain!r} is stated twice")
        _TABLE[domain, name] = replace(entry, **stated)


def withdraw(name: str, *, domain: str) -> None:
    """Forget an operator, so that it can be declared anew."""
    _TABLE.pop((domain, name), None)


def find(domain: str, name: str) -> Operator:
    """Return the entry of an operator; one that says nothing for an operator that nobody declared.

    ``"ai.onnx"`` is another name of the default domain.
    """
    _load()
    return _TABLE.get(("" if domain == "ai.onnx" else domain, name), _UNKNOWN)


def operators() -> Iterator[Operator]:
    """Yield every entry, ordered by domain and name."""
    _load()
    for key in sorted(_TABLE):
        yield _TABLE[key]


def ruled_operators() -> Iterator[Operator]:
    """Yield the entries that have a rule, ordered by domain and name."""
    return (entry for entry in operators() if entry.label is not None)


def _load() -> None:
    if _loading["done"]:
        return
    _loading["done"] = True
    for room in DECLARING:
        package = importlib.import_module(room)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{room}.{module.name}")
