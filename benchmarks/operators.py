"""The operator table of the documentation, made from the rule table and from training through every operator.

Run from the root of the repository, where the training build of onnxruntime is installed, since both engines train:
``python -m benchmarks.operators > docs/operators.md``.
"""

import math
from collections.abc import Iterator
from types import CodeType, FunctionType

import onnx

from onnxadmm.operators.table import Operator, ruled_operators
from onnxadmm.rules.table import LabelFunction
from onnxadmm.train.engine import Engine
from tests.train.backward.operator_gradients import Outcome, outcome_of

_HEAD = """# Operators

Made from the rule table by `python -m benchmarks.operators`; do not edit.

Every operator below has a rule: what happens to its axes when units are removed. An operator that is not listed locks
what it touches, by name, and everything else is still pruned.

- **exact**: units pass through or end here; the shrunk model computes what the masked original computes.
- **locks**: an axis that the operator works along stays; the others pass, exactly.
- **inexact**: as *locks*, unless `--inexact` asks to prune through it; the report then names it.

*Since* is the first version of the operator set that has the operator. *Cost* says whether its multiply-accumulates
are counted; parameters are counted for every operator.

*Training* is what happened when a network with the operator was trained, with both [engines](training.md#engines)
alike: **yes**, they have its gradient; **lowered**, it is rewritten on the training copy into operators that have one;
**none**, its results carry no gradient
by their nature, or nothing above it is trained; **refused**, a model that would have to train through it is refused by
its name, or keeps the weights above it with `--freeze-untrainable`. *Forms* counts the graphs (types, shapes,
attributes) whose gradients were compared with finite differences of the original in float64, or of its float32 loss
where ONNX's evaluator computes in float32; *Training build* and *Plain* are the largest difference between slope and
gradient among them, relative to the largest gradient, of the engine of that name. The tests hold every row to it.

*Code* names the modules of the package that know the operator: its labels and cost, the shape of its result where ONNX
does not infer it, its lowering and its gradient. What it is beside that (a move, element-wise, weights, indices) stands
in the decorator of its rule; `onnxadmm.operators.table.find` gives all of it as one entry.
"""
#: In the order of the columns.
ENGINES: tuple[Engine, ...] = ("training", "plain")
_COLUMNS = (
    "Operator",
    "Since",
    "Effect",
    "Cost",
    "Training",
    "Forms",
    "Training build",
    "Plain",
    "Code",
    "What its rule says",
)


def page() -> str:
    """Return the page: Markdown with one table per domain."""
    parts = [_HEAD]
    for domain in sorted({rule.domain for rule in ruled_operators()}):
        parts.append(f"## {domain or 'ai.onnx, the default domain'}\n")
        lines = [_line(_COLUMNS), _line(tuple("---" for _ in _COLUMNS))]
        lines.extend(_line(cells(rule)) for rule in ruled_operators() if rule.domain == domain)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def cells(rule: Operator) -> tuple[str, ...]:
    """Return one row of the table."""
    return (
        rule.name,
        _since(rule),
        rule.effect,
        "MACs" if rule.label is not None and "add_macs" in set(_names(rule.label)) else "",
        *training_cells(rule, *(outcome_of(rule, engine) for engine in ENGINES)),
        ", ".join(f"`{module}`" for module in modules(rule)),
        rule.note,
    )


def modules(rule: Operator) -> list[str]:
    """Return the modules that hold the operator's labels and cost, its shape, its lowering and its gradient."""
    functions = (rule.label, rule.shape, rule.lowering, rule.refuses, rule.gradient, rule.backward)
    names = [function.__module__ for function in functions if callable(function)]
    return [name.removeprefix("onnxadmm.") for name in dict.fromkeys(names)]


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(row)} |"


def _since(rule: Operator) -> str:
    versions = [
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == rule.domain and schema.name == rule.name
    ]
    return str(min(versions)) if versions else ""


def training_cells(rule: Operator, *outcomes: Outcome) -> tuple[str, ...]:
    """Return what training makes of an operator, the forms that were checked, and the worst error with each engine.

    Raises:
        ValueError: the engines make something else of it.
    """
    first = outcomes[0]
    if len({(outcome.training, outcome.forms) for outcome in outcomes}) > 1:
        raise ValueError(f"{rule.name}: {outcomes}")
    if first.training != "yes":
        return first.training, "", *("" for _ in outcomes)
    own = not rule.domain and rule.gradient == "engine"
    # One digit after rounding up: the last bits differ from machine to machine.
    bounds = [10.0 ** math.ceil(math.log10(max(outcome.error, 1e-7))) for outcome in outcomes]
    return "yes" if own else "lowered", str(first.forms), *(f"< {bound:.0e}" for bound in bounds)


def _names(function: LabelFunction) -> Iterator[str]:
    """Yield the names that a label function uses, and those of the functions of its module that it calls."""
    pending: list[CodeType] = [function.__code__]
    seen: set[int] = set()
    while pending:
        code = pending.pop()
        if id(code) in seen:
            continue
        seen.add(id(code))
        for name in code.co_names:
            yield name
            called = function.__globals__.get(name)
            if isinstance(called, FunctionType):
                pending.append(called.__code__)


if __name__ == "__main__":
    print(page(), end="")
