"""What a label function sees: one node, the labels of its operands, and the few things it may say."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir

from onnxadmm.graph.constants import FLOATS
from onnxadmm.graph.probing import remedy
from onnxadmm.rules.facts import ActivationRead, Axis, Factored, Facts, MacTerm, Operand, Read
from onnxadmm.rules.labels import LabelArray


class LockNodeError(Exception):
    """Raised by a label function that does not cover a case: the node locks what it touches."""


class Visit:
    """One node, as its label function sees it."""

    def __init__(self, facts: Facts, node: onnx_ir.Node, *, inexact: bool) -> None:
        self.node = node
        self.inexact = inexact
        self.facts = facts
        name = node.name or next((output.name for output in node.outputs if output.name), "unnamed")
        self.where = f"{node.op_type} ({name})"
        self.name = name
        self._covered: set[int] = set()

    # -- what is there -------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Tell whether the node has this operand."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    @property
    def operand_count(self) -> int:
        """Number of operands, absent ones in the middle included."""
        return len(self.node.inputs)

    def operand(self, index: int) -> Operand:
        """Return an operand with its labels.

        Raises:
            LockNodeError: the operand is absent or its shape is not known.
        """
        self._covered.add(index)
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None or value.name is None:
            raise LockNodeError(f"operand {index} is absent")
        shape = self.facts.shapes.shape(value.name)
        if shape is None:
            raise LockNodeError(f"the shape of {value.name} is not known{remedy(value)}")
        if value.name not in self.facts.axes:
            if value.name not in self.facts.constants:
                raise LockNodeError(f"{value.name} has no labels")
            labels = self.facts.labels
            self.facts.axes[value.name] = tuple(labels.fresh(size) if size > 1 else None for size in shape)
        if value.name in self.facts.constants:
            owners = self.facts.owners.setdefault(value.name, [])
            self.facts.titles[self.name] = self.where
            if self.name not in owners:
                owners.append(self.name)
                self._join_blocks(value.name)
        constant = value.name in self.facts.constants or value.name in self.facts.derived
        return Operand(value.name, shape, self.facts.axes[value.name], constant)

    def _join_blocks(self, name: str) -> None:
        """Tie the blocks of an axis that another node has cut by blocks: this one may read it in another way."""
        joined: list[Axis] = []
        for axis in self.facts.axes[name]:
            if axis is None or axis.ndim == 1:
                joined.append(axis)
                continue
            self.facts.labels.tie(np.broadcast_to(axis[0], axis.shape), axis)
            joined.append(axis[0])
        self.facts.axes[name] = tuple(joined)

    def operands(self) -> list[Operand]:
        """Return all operands that are present."""
        return [self.operand(index) for index in range(self.operand_count) if self.has(index)]

    def is_constant(self, index: int) -> bool:
        """Tell whether an operand is computed from constants alone."""
        value = self.node.inputs[index]
        return value is not None and (value.name in self.facts.constants or value.name in self.facts.derived)

    def ignore(self, index: int) -> None:
        """State that nothing depends on the sizes or values of an operand."""
        self._covered.add(index)

    def uncovered(self) -> list[onnx_ir.Value]:
        """Return the operands whose labels the rule has not looked at: it reads them as plain values."""
        return [
            value for index, value in enumerate(self.node.inputs) if value is not None and index not in self._covered
        ]

    def partial(self, index: int) -> tuple[int | None, ...] | None:
        """Return the elements of a one-dimensional operand of integers, None for those that a free size decides.

        None when nothing is known of it.
        """
        value = self.node.inputs[index] if self.has(index) else None
        return None if value is None or value.name is None else self.facts.shapes.partial(value.name)

    def value(self, index: int) -> np.ndarray | None:
        """Return the value of a small operand that is known before running, or None."""
        value = self.node.inputs[index] if self.has(index) else None
        return None if value is None or value.name is None else self.facts.shapes.value(value.name)

    def values_of(self, value: onnx_ir.Value) -> list[int] | None:
        """Return the integers of any small value that is known before running, or None."""
        array = self.facts.shapes.value(value.name or "")
        return None if array is None else [int(number) for number in array.reshape(-1)]

    def known(self, index: int, what: str) -> list[int]:
        """Return the integers of an operand that has to be known before running.

        Raises:
            LockNodeError: they are computed while running.
        """
        value = self.value(index)
        if value is None:
            raise LockNodeError(f"its {what} are computed while running")
        return [int(number) for number in value.reshape(-1)]

    def result_shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the sample shape of a result.

        Raises:
            LockNodeError: it is not known.
        """
        name = self.node.outputs[index].name
        shape = None if name is None else self.facts.shapes.shape(name)
        if shape is None:
            raise LockNodeError("the shape of its result is not known")
        return shape

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that lists integers, or None when it is absent."""
        numbers = self.node.attributes.get_ints(name)
        return None if numbers is None else list(numbers)

    def text(self, name: str, default: str) -> str:
        """Return a text attribute."""
        return self.node.attributes.get_string(name, default)

    def axis_attribute(self, name: str, default: int, rank: int) -> int:
        """Return an axis attribute, counted from the front."""
        axis = self.integer(name, default)
        return axis + rank if axis < 0 else axis

    @property
    def version(self) -> int:
        """Version of the operator set of the default domain that the model imports."""
        graph = self.node.graph
        imports = graph.opset_imports if isinstance(graph, onnx_ir.Graph) else {}
        return imports.get("", imports.get("ai.onnx", 1))

    # -- what may be said ----------------------------------------------------------------------------

    def give(self, axes: Sequence[Axis], *, result: int = 0) -> None:
        """State the axes of a result; axes of size one stay."""
        if result >= len(self.node.outputs) or not self.node.outputs[result].name:
            return
        shape = self.result_shape(result)
        if len(axes) != len(shape):
            raise ValueError(f"{self.where}: {len(axes)} axes for a result of rank {len(shape)}")
        for axis, size in zip(axes, shape, strict=True):
            if axis is not None and axis.shape != (size,):
                raise ValueError(f"{self.where}: {axis.shape} labels for an axis of size {size}")
        name = self.node.outputs[result].name
        assert name is not None  # guarded above
        self.facts.axes[name] = tuple(axis if size > 1 else None for axis, size in zip(axes, shape, strict=True))

    def give_unsized(self, axes: Sequence[Axis], *, result: int) -> None:
        """State the axes of a result whose lengths need not be known: whatever reads it then locks them."""
        if result < len(self.node.outputs) and (name := self.node.outputs[result].name):
            self.facts.axes[name] = tuple(axes)

    def stays(self, axis: Axis) -> bool:
        """Tell whether it is known already that no position of an axis may go."""
        return axis is None or bool(self.facts.labels.locked(axis).all())

    def shows(self, result: int) -> bool:
        """Tell whether a result is an output of the graph."""
        return result < len(self.node.outputs) and self.node.outputs[result].is_graph_output()

    def tie(self, first: Axis, second: Axis, why: str = "ties it to positions that stay") -> Axis:
        """Make two axes live and die together; an axis that stays locks the other. Returns the tied axis."""
        if first is None or second is None:
            for axis in (first, second):
                self.lock(axis, why)
            return None
        self.facts.labels.tie(first, second)
        return first

    def lock(self, axis: Axis, why: str) -> None:
        """Make the positions of an axis stay."""
        if axis is not None:
            self.facts.labels.lock(axis, f"{self.where} {why}")

    def mix(self, axis: Axis, why: str = "mixes along it") -> Axis:
        """State that removing positions of an axis changes the others: they stay, unless inexact pruning is wanted.

        Returns:
            the axis when it may shrink nevertheless.
        """
        if axis is None:
            return None
        if not self.inexact:
            self.lock(axis, why)
            return None
        self.facts.inexact.append((self.where, axis))
        return axis

    def lock_others(self, operand: Operand, free: Sequence[int], why: str) -> None:
        """Lock every axis of an operand but those in ``free``."""
        for index, axis in enumerate(operand.axes):
            if index not in free:
                self.lock(axis, why)

    def whole(self, weight: Operand, axes: Sequence[int]) -> None:
        """Keep axes of a weight that are no units at all, such as kernel sizes: they stay unmentioned."""
        for index in axes:
            self.lock(weight.axes[index], "needs it whole")
            self.facts.whole.add((weight.name, index))

    def fixed(self, length: int, why: str) -> LabelArray:
        """Return labels of positions that stay, for use beside others that may go."""
        return self.facts.labels.fixed(length, f"{self.where} {why}")

    def fresh(self, length: int) -> LabelArray:
        """Return new labels, for positions that this node creates."""
        return self.facts.labels.fresh(length)

    def copies(self, length: int) -> LabelArray:
        """Return new labels for positions that are all alike; where a reshape leaves a choice, others carry the units.

        Copies of a key head beside other key heads go with the head that they copy.
        """
        labels = self.fresh(length)
        self.facts.copies.add(int(labels[0]))
        return labels

    def select(self, labels: LabelArray, positions: LabelArray) -> LabelArray:
        """Return the labels at some positions; they become units that compete among themselves.

        Otherwise a plan could remove all of them and leave an empty axis.
        """
        selected = labels[positions]
        self.facts.selections.append(selected)
        return selected

    def read(self, weight: Operand, axis: int, labels: LabelArray) -> None:
        """State that an axis of a weight consumes these positions: zeros there hide them from all that follows."""
        self.facts.reads.append(Read(self.where, weight.name, axis, labels))

    def read_activation(self, index: int, axis: int) -> None:
        """State that the node sums over an axis of an activation, to which a position that is zero adds nothing.

        What cannot be multiplied by zeros and ones, one for each position, locks.
        """
        operand = self.operand(index)
        labels, result = operand.axes[axis], self.node.outputs[0].name
        if labels is None:
            return
        if self.is_free(operand, axis):
            self.lock(labels, "sums over it at a size that is not known")
        elif result is None or self.facts.shapes.dtype(operand.name) not in FLOATS:
            self.lock(labels, "sums over it in other numbers than floats")
        else:
            self.facts.activation_reads.append(ActivationRead(result, index, operand.name, axis, labels))

    def balance(self, blocks: LabelArray) -> None:
        """State that every row of ``[blocks, n]`` must keep equally many positions."""
        self.facts.balances.append((self.where, blocks))

    def cut_weight_by_blocks(self, weight: Operand, axis: int, labels: LabelArray, *, reads: bool = True) -> None:
        """Give an axis of a weight labels that depend on the block of axis 0: ``labels`` is ``[blocks, n]``.

        Where another node has labelled this axis already, or the weight is computed, the blocks are tied
        to each other instead, which is coarser and still exact. ``reads`` tells whether the axis consumes
        these positions, or writes them.
        """
        untouched = weight.name in self.facts.constants and self.facts.owners.get(weight.name) == [self.name]
        if untouched and weight.shape[axis] > 1:
            axes = list(weight.axes)
            axes[axis] = labels
            self.facts.axes[weight.name] = tuple(axes)
            if reads:
                self.facts.reads.append(Read(self.where, weight.name, axis, labels))
            return
        for row in labels[1:]:
            self.facts.labels.tie(labels[0], row)
        own = self.tie(weight.axes[axis], labels[0] if weight.shape[axis] > 1 else None)
        if own is None:
            for row in labels:
                self.lock(row, "reads it through an axis of size one")
        elif reads:
            self.facts.reads.append(Read(self.where, weight.name, axis, own))

    def factor(self, sources: Sequence[tuple[int, Axis]], targets: Sequence[tuple[int, Axis]]) -> None:
        """State that a run of axes becomes another run with the same positions in row-major order."""
        self.facts.factored.append(Factored(self.where, tuple(sources), tuple(targets)))

    def multiply_accumulates(self, sizes: Sequence[float], axes: Sequence[Axis]) -> None:
        """State the node's MACs for one sample: the product of ``sizes``; labelled ones shrink with their axis.

        A size may be a share of its axis, which then holds several samples.
        """
        constant = 1.0
        labelled: list[LabelArray] = []
        for size, axis in zip(sizes, axes, strict=True):
            constant *= size
            if axis is not None:
                constant /= axis.shape[-1]
                labelled.append(axis)
        self.facts.mac_terms.append(MacTerm(self.name, constant, tuple(labelled)))

    def is_free(self, operand: Operand, index: int) -> bool:
        """Tell whether the length of an axis depends on a free input dimension: positions there have no numbers."""
        flags = self.facts.shapes.dynamic(operand.name)
        return flags is None or flags[index]

    def samples(self, shape: Sequence[int], name: str | None) -> float:
        """Return which share of the leading axis belongs to one sample: one position where it is the free batch.

        Where the batch is another axis, or merged with one, it is the share that makes the whole tensor that of one
        sample.
        """
        flags = None if name is None else self.facts.shapes.dynamic(name)
        batch = self.facts.shapes.batch
        if not shape or not flags or not any(flags):
            return shape[0] if shape else 1
        if any(free and size % batch == 0 for free, size in zip(flags, shape, strict=True)):
            return shape[0] / batch
        return 1 if flags[0] else shape[0]

    def head(self, axis: Axis) -> None:
        """State that each position of this axis is a complete head."""
        if axis is not None:
            self.facts.labels.mark_head(axis)


def product(sizes: Sequence[int]) -> int:
    """Return the product of some sizes; 1 for none."""
    return math.prod(sizes)


def period(labels: LabelArray) -> int:
    """Return after how many positions labels repeat; along a free axis every sample has the same ones."""
    for length in range(1, labels.size):
        if labels.size % length == 0 and (labels.reshape(-1, length) == labels[:length]).all():
            return length
    return int(labels.size)
