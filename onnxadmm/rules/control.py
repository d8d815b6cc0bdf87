"""Operators that run graphs of their own."""

from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit


@rule("If", effect="locks", note="the branch of a known condition is written out; otherwise what both read stays")
def branch(visit: Visit) -> None:
    raise LockNodeError("chooses its branch while running")


@rule("Loop", "Scan", effect="locks", note="what its body reads stays")
def loop(visit: Visit) -> None:
    raise LockNodeError("runs its body again and again")
