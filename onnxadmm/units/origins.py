"""Where the zeros of a mask are written: the constants behind each weight that reads."""

from dataclasses import dataclass

import numpy as np
import onnx_ir

from onnxadmm.operators.table import find
from onnxadmm.rules.facts import Facts, Read


@dataclass(frozen=True)
class Origin:
    """An axis of a constant whose zeros hide units from a reader."""

    tensor: str
    axis: int


def resolve_reads(facts: Facts) -> list[Origin]:
    """Follow every reading weight back to constants.

    A weight that is computed from constants can be zeroed at its origin when every operator on the way
    gives zero for zero; otherwise the units it reads are locked.
    """
    origins: list[Origin] = []
    for read in facts.reads:
        if read.tensor in facts.constants:
            origins.append(Origin(read.tensor, read.axis))
            continue
        found, obstacle = _trace(facts, read)
        if obstacle is not None:
            facts.labels.lock(read.labels.reshape(-1), f"{read.where} reads through a weight computed by {obstacle}")
        origins.extend(found)
    return origins


def _trace(facts: Facts, read: Read) -> tuple[list[Origin], str | None]:
    wanted = np.unique(facts.labels.roots(read.labels))
    covered = np.zeros(wanted.size, dtype=np.bool_)
    found: list[Origin] = []
    pending = [facts.derived[read.tensor]]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        keeps_zero = find(node.domain, node.op_type).keeps_zero
        if not (keeps_zero or node.outputs[0].name in facts.zeroed):
            return found, f"{node.op_type} ({node.name or node.outputs[0].name})"
        for value in node.inputs if keeps_zero else node.inputs[:1]:
            if value is None or value.name is None or not _touches(facts, value, wanted):
                continue
            if value.name in facts.derived:
                pending.append(facts.derived[value.name])
                continue
            for index, axis in enumerate(facts.axes[value.name]):
                if axis is not None:
                    inside = np.isin(wanted, facts.labels.roots(axis))
                    covered |= inside
                    if inside.any():
                        found.append(Origin(value.name, index))
    if not covered.all():
        return found, f"nodes before {read.where}, which hide its origin"
    return found, None


def _touches(facts: Facts, value: onnx_ir.Value, wanted: np.ndarray) -> bool:
    axes = facts.axes.get(value.name or "", ())
    return any(axis is not None and np.isin(wanted, facts.labels.roots(axis)).any() for axis in axes)
