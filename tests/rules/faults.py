"""Faults planted into the rule of one operator, and whether the comparison of masked and shrunk catches them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from onnxadmm.errors import OnnxAdmmError
from onnxadmm.operators import table
from onnxadmm.operators.table import Operator
from onnxadmm.rules.facts import Axis
from onnxadmm.rules.visit import Visit
from tests.rewrite import laws

Fault = Callable[[Operator], Operator]
FAILURES = (
    AssertionError, ValueError, IndexError, OnnxAdmmError, onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)  # fmt: skip


def _after(rule: Operator, change: Callable[[Visit, Axis], Axis]) -> Operator:
    def label(visit: Visit) -> None:
        rule.label(visit)
        for output in visit._node.outputs:
            axes = visit._facts.axes.get(output.name or "")
            if axes is not None and output.name:
                visit._facts.axes[output.name] = tuple(change(visit, axis) for axis in axes)

    return replace(rule, label=label)


def shifted(rule: Operator) -> Operator:
    """Every result names the unit next to the right one."""
    return _after(rule, lambda visit, axis: None if axis is None else np.roll(axis, 1))


def untied(rule: Operator) -> Operator:
    """No result has anything to do with the operands."""
    return _after(rule, lambda visit, axis: None if axis is None else visit.new_labels(axis.size))


def unlocked(rule: Operator) -> Operator:
    """Nothing locks."""

    def label(visit: Visit) -> None:
        visit.lock = lambda axis, why: None  # type: ignore[method-assign]
        rule.label(visit)

    return replace(rule, label=label)


def ungated(rule: Operator) -> Operator:
    """Sums over activations are forgotten to be readers."""

    def label(visit: Visit) -> None:
        visit.mark_summed = lambda operand, axis: None  # type: ignore[method-assign]
        rule.label(visit)

    return replace(rule, label=label)


def gated_elsewhere(rule: Operator) -> Operator:
    """Sums over activations hide the unit next to the right one."""

    def label(visit: Visit) -> None:
        rule.label(visit)
        reads = visit._facts.activation_reads
        reads[:] = [replace(read, labels=np.roll(read.labels, 1)) for read in reads]

    return replace(rule, label=label)


def not_rewritten(rule: Operator) -> Operator:
    """Sizes that the operator names stay what they were."""
    return replace(rule, rewrite=None)


def plant(fault: Fault, operator: str, *, domain: str = "") -> None:
    """Replace the operator's rule; the caller restores the table."""
    rule = table.find(domain, operator)
    assert rule.label is not None
    table._TABLE[(domain, operator)] = fault(rule)


def caught(original: onnx.ModelProto, *, seeds: range = range(3), expected: int = 0) -> bool:
    """Tell whether some plan shows that the masked original and the shrunk model differ, or breaks the latter.

    A rule that leaves fewer than ``expected`` units is caught as well: it ties or locks too much.
    """
    try:
        if laws.units_of(original)[1].count < expected:
            return True
        laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=seeds)
    except FAILURES:
        return True
    return False
