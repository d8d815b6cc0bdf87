"""Operators that run graphs of their own."""

from onnxadmm.operators.table import declare
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

# What draws at random, or computes with more than tensors.
declare(
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    pure=False, draws=True,
)  # fmt: skip
declare("ConcatFromSequence", "Optional", "SequenceMap", pure=False)


@rule(
    "If", effect="locks", pure=False,
    note="the branch of a known condition is written out; otherwise what both read stays",
)  # fmt: skip
def branch(visit: Visit) -> None:
    raise LockNodeError("chooses its branch while running")


@rule("Loop", "Scan", effect="locks", pure=False, note="what its body reads stays")
def loop(visit: Visit) -> None:
    raise LockNodeError("runs its body again and again")
