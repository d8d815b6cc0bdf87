"""The walk over a graph that asks every operator's rule for its labels."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir

from onnxadmm.graph.boundary import name_node
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import infer
from onnxadmm.operators.table import find
from onnxadmm.rules.facts import Facts
from onnxadmm.rules.regrouping import resolve_regrouped
from onnxadmm.rules.visit import LockNodeError, Visit

#: How a node is described whose operands or attributes its rule cannot make sense of. No good model has any.
DOES_NOT_FIT: Final = "has operands or attributes that do not fit it"
#: Positions of an axis that are followed: the labels of one that is longer would take too much memory.
LONGEST_AXIS: Final = 2**20


def analyse(
    model: Model, *, inexact: bool = False, features: bool = False, refused: Mapping[str, str] | None = None
) -> Facts:
    """Label every axis that could shrink, tie what lives and dies together, lock what must stay.

    An operator without a rule, or met in a case its rule does not cover, locks what it touches, by name.

    Args:
        model: any model; it is not changed.
        inexact: also prune through operators that mix along the removed axis.
        features: columns that a Gather picks behind a flattening are units of their own.
        refused: nodes that lock what they touch whatever their rule says, by the name of a result, and why.
    """
    facts = Facts(shapes=infer(model))
    graph = model.ir.graph
    for value in graph.inputs:
        if value.name not in graph.initializers:  # older files list their weights among the inputs
            _stay(facts, value)
    for value in graph.initializers.values():
        if value.name:
            facts.constants[value.name] = value
    for node in graph:
        try:
            _visit(facts, node, inexact=inexact, features=features, refused=refused or {})
        except Exception as error:
            name_node(error, node)
            raise
    for value in graph.outputs:
        lock_value(facts, value, f"reaches graph output {value.name}")
    for name, reason in facts.rigid.items():
        for axis in facts.axes.get(name, ()):
            if axis is not None:
                facts.labels.lock(np.unique(axis), reason)
    resolve_regrouped(facts)
    return facts


def _visit(facts: Facts, node: onnx_ir.Node, *, inexact: bool, features: bool, refused: Mapping[str, str]) -> None:
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        output = node.outputs[0]
        if output.name and constant(output) is not None:
            facts.constants[output.name] = output
        return
    visit = Visit(facts, node, inexact=inexact, features=features)
    label = find(node.domain, node.op_type).label
    captured = list(_captured(node))
    try:
        if label is None:
            raise LockNodeError(f"no rule for {visit.where}")
        for output in node.outputs:
            if output.name and output.name in refused:
                raise LockNodeError(refused[output.name])
        _ask(label, visit)
        for unread in visit.unread_operands():
            facts.rigid.setdefault(unread, f"{visit.where} reads its values")
        for output in node.outputs:
            if output.name and output.name not in facts.axes:
                raise LockNodeError("has a result that its rule does not cover")
    except LockNodeError as refusal:
        reason = str(refusal) if label is None else f"{visit.where} {refusal}"
        for value in [*node.inputs, *captured]:
            if value is not None:
                lock_value(facts, value, reason)
        for output in node.outputs:
            _stay(facts, output)
        if bodies(node):
            facts.closed.append((node, reason))
    indices = [index for index in range(len(node.inputs)) if visit.has_operand(index)]
    fixed = all(visit.is_constant(index) or visit.value(index) is not None for index in indices)
    if fixed and any(visit.is_constant(index) for index in indices):
        for output in node.outputs:
            if output.name:
                facts.derived[output.name] = node


def _ask(label: Callable[[Visit], None], visit: Visit) -> None:
    """Call a rule. In a good model the operands fit the operator; what a rule raises where they do not locks.

    Raises:
        LockNodeError: the rule refuses, or meets what it does not expect.
    """
    for index in range(visit.result_count):
        if max(visit.known_result_shape(index), default=0) > LONGEST_AXIS:
            raise LockNodeError(f"has a result with an axis of more than {LONGEST_AXIS} positions")
    try:
        label(visit)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:120].rstrip(". ")
        raise LockNodeError(f"{DOES_NOT_FIT} ({type(error).__name__}: {words})") from error


def _stay(facts: Facts, value: onnx_ir.Value) -> None:
    shape = None if value.name is None else facts.shapes.shape(value.name)
    if value.name and shape is not None:
        facts.axes[value.name] = (None,) * len(shape)


def lock_value(facts: Facts, value: onnx_ir.Value, reason: str) -> None:
    """Lock every labelled axis of a value; a constant that has no labels yet gets locked ones."""
    name = value.name or ""
    shape = facts.shapes.shape(name)
    if name in facts.constants and name not in facts.axes and shape is not None:
        facts.axes[name] = tuple(facts.labels.new(size) if size > 1 else None for size in shape)
    for axis in facts.axes.get(name, ()):
        if axis is not None:
            facts.labels.lock(np.unique(axis), reason)


def _captured(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Return the outer values that a node's subgraphs read."""
    found: dict[str, onnx_ir.Value] = {}
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        else:
            continue
        for graph in graphs:
            inner = {id(value) for value in graph.inputs} | {id(value) for value in graph.initializers.values()}
            for step in graph.all_nodes():
                inner.update(id(value) for value in step.outputs)
                for body in bodies(step):
                    inner.update(id(value) for value in [*body.inputs, *body.initializers.values()])
            reads = [value for step in graph.all_nodes() for value in step.inputs if value is not None]
            for value in [*reads, *graph.outputs]:
                if id(value) not in inner and value.name:
                    found[value.name] = value
    return list(found.values())


def bodies(node: onnx_ir.Node) -> list[onnx_ir.Graph]:
    """Return the graphs that a node runs, as If, Loop and Scan do."""
    found: list[onnx_ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found
