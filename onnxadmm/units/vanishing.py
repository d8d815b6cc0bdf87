"""Groups that may go altogether: branches that a sum would be without.

Where every unit of a group goes, what reads it puts out its offset and nothing else. If that is only added to something
else, as at the end of a residual branch, the sum needs the offset alone, and the whole branch is no longer read. Any
other group keeps a unit, since nothing runs on axes without a position.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.graph.probing import has_bodies
from onnxadmm.units.units import Group, Units

Array = NDArray[Any]


@dataclass(frozen=True)
class Branch:
    """What a sum is without once all units of a group have gone.

    Attributes:
        reader: the node that reads the group along all of the axis that it sums over.
        total: the Add that its result goes into, behind what only scales, shifts or turns it.
        operand: by which of its operands.
        added: the offset of the reader and what it meets on the way, constants all.
        constant: what these make, which is left of the branch, in a shape that meets the sum when it is broadcast.
    """

    reader: onnx_ir.Node
    total: onnx_ir.Node
    operand: int
    added: tuple[onnx_ir.Value, ...]
    constant: Array

    @property
    def rest(self) -> onnx_ir.Value:
        """What it is added to."""
        value = self.total.inputs[1 - self.operand]
        assert value is not None  # an Add has two operands
        return value

    @property
    def is_free(self) -> bool:
        """Whether what is left takes no more room than what was there: nothing else needs the constants, or an Add."""
        if not self.constant.any():
            return not self.total.outputs[0].is_graph_output()
        return all(len(value.uses()) == 1 for value in self.added)


def may_vanish(model: Model, units: Units) -> frozenset[int]:
    """Return the first unit of each group that may go altogether.

    Args:
        model: the model the units were found in.
        units: its units.
    """
    whole = inline(model)
    if any(has_bodies(node) for node in whole.ir.graph):
        return frozenset()
    found, led = branches(whole, units), units.followers.leaders
    dying = {
        group.start: found[group.start]
        for group in units.groups
        if group.start in found
        and not np.isin(led, group.numbers).any()
        and all(branch.is_free for branch in found[group.start])
        and _dies(whole, units, group, found[group.start])
    }
    # Where both operands of a sum could go, none may: something has to stay.
    sums = Counter(id(branch.total) for each in dying.values() for branch in each)
    return frozenset(start for start, each in dying.items() if all(sums[id(branch.total)] == 1 for branch in each))


def emptied(units: Units, keep: NDArray[np.bool_]) -> list[Group]:
    """Return the groups of which no unit stays; ``keep`` is bool ``[units.count]``."""
    return [group for group in units.groups if not keep[group.places].any()]


def branches(model: Model, units: Units) -> Mapping[int, Sequence[Branch]]:
    """Return where each group ends in sums, by the number of its first unit; it may be read elsewhere as well.

    Args:
        model: with functions written out; its constants may have been cut, its nodes not.
        units: of the model before.
    """
    constants = constants_by_name(model)
    known = {name: array for name, value in constants.items() if (array := constant(value)) is not None}
    found: dict[int, list[Branch]] = {}
    for node in model.ir.graph:
        group = _read_whole(node, units)
        branch = None if group is None else _branch(node, units, known)
        if group is not None and branch is not None:
            found.setdefault(group.start, []).append(branch)
    return found


def _read_whole(node: onnx_ir.Node, units: Units) -> Group | None:
    """Return the group whose units are all that a product of an activation with a constant sums over."""
    attributes = node.attributes
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    axes = units.axes.get(_name(node, 0))
    if axes is None or (node.op_type == "Conv" and attributes.get_int("group", 1) != 1):
        return None
    if node.op_type == "Gemm" and (attributes.get_int("transA", 0) != 0 or attributes.get_float("beta", 1.0) != 1.0):
        return None
    summed = axes[1] if node.op_type == "Conv" else axes[-1]
    if summed is None or summed.ndim > 1:
        return None
    return next((group for group in units.groups if np.isin(summed, group.numbers).all()), None)


def _branch(node: onnx_ir.Node, units: Units, known: Mapping[str, Array]) -> Branch | None:
    """Follow the result of a product to the sum that it goes into; None where it goes anywhere else."""
    weight, offset = known.get(_name(node, 1)), known.get(_name(node, 2))
    if weight is None or (offset is None and _name(node, 2)):
        return None
    left = np.zeros((), weight.dtype) if offset is None else offset
    added = [node.inputs[2]] if offset is not None else []
    if node.op_type == "Conv" and left.ndim:
        left = left.reshape(-1, *[1] * (weight.ndim - 2))
    result = node.outputs[0]
    while True:
        uses = list(result.uses())
        if len(uses) != 1 or result.is_graph_output() or uses[0].node.domain:
            return None
        total, operand = uses[0].node, uses[0].idx
        passed = _behind(total, operand, left, known, units.shapes.shape(total.outputs[0].name or ""))
        if passed is None:
            break
        added += [value for place, value in enumerate(total.inputs) if place != operand]
        left, result = passed, total.outputs[0]
    rest, whole = _name(total, 1 - operand), _lengths(units, total.outputs[0].name or "")
    if total.op_type != "Add" or whole is None or _lengths(units, rest) != whole:
        return None
    return Branch(node, total, operand, tuple(value for value in added if value is not None), left)


def _behind(
    node: onnx_ir.Node, operand: int, value: Array, known: Mapping[str, Array], shape: tuple[int, ...] | None
) -> Array | None:
    """Return what a node makes of a constant where its other operands are constants as well; None where nobody knows.

    A scale (as of LayerScale), a shift, a normalisation by statistics that are known, and an order of axes.

    Args:
        operand: place of the constant.
        shape: of the result when nothing has gone.
    """
    others = [known.get(_name(node, place)) for place in range(len(node.inputs)) if place != operand]
    if any(other is None for other in others):
        return None
    rank = None if shape is None else len(shape)
    if node.op_type == "Identity":
        return value
    if node.op_type in ("Add", "Mul"):
        return np.asarray(value + others[0] if node.op_type == "Add" else value * others[0])
    if node.op_type == "Transpose" and rank is not None:
        order = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
        return value.reshape(*[1] * (rank - value.ndim), *value.shape).transpose(order)
    if node.op_type == "BatchNormalization" and rank is not None and len(node.outputs) == 1:
        scale, shift, mean, variance = (np.asarray(other).reshape(-1, *[1] * (rank - 2)) for other in others)
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        return np.asarray((value - mean) / np.sqrt(variance + epsilon) * scale + shift, value.dtype)
    return None


def _lengths(units: Units, name: str) -> tuple[tuple[int, bool], ...] | None:
    """The lengths of the axes of a value, and which of them are free."""
    shape, dynamic = units.shapes.shape(name), units.shapes.dynamic(name)
    return None if shape is None or dynamic is None else tuple(zip(shape, dynamic, strict=True))


def _name(node: onnx_ir.Node, place: int) -> str:
    """The name of an operand, empty where there is none."""
    value = node.inputs[place] if place < len(node.inputs) else None
    return "" if value is None else value.name or ""


def _dies(model: Model, units: Units, group: Group, ends: Sequence[Branch]) -> bool:
    """Whether nothing that is read without these branches has to do with a unit of the group."""
    cut = {(id(branch.total), branch.operand) for branch in ends}
    members = group.numbers

    def touches(value: onnx_ir.Value | None) -> bool:
        axes = units.axes.get("" if value is None else value.name or "", ())
        return any(axis is not None and np.isin(axis, members).any() for axis in axes)

    return not any(touches(value) for node in _alive(model, cut) for value in (*node.inputs, *node.outputs))


def _alive(model: Model, cut: set[tuple[int, int]]) -> Iterator[onnx_ir.Node]:
    """Yield the nodes that the outputs need, without what some operands of nodes need."""
    pending = list(model.ir.graph.outputs)
    seen: set[int] = set()
    while pending:
        node = pending.pop().producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        pending += [
            value for place, value in enumerate(node.inputs) if value is not None and (id(node), place) not in cut
        ]
