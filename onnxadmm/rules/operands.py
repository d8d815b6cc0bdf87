"""What a label function reads: the operands of a node with their labels, and what is known of its results."""

import numpy as np
import onnx_ir

from onnxadmm.graph.probing import remedy
from onnxadmm.rules.facts import Axis, Facts, Operand
from onnxadmm.rules.node import LockNodeError, NodeView


class LabelledNode(NodeView):
    """A node whose operands have labels."""

    def __init__(self, facts: Facts, node: onnx_ir.Node, *, inexact: bool, features: bool = False) -> None:
        super().__init__(node, facts.shapes)
        self._facts = facts
        self._inexact = inexact
        self._features = features
        self._looked_at: set[int] = set()

    @property
    def inexact(self) -> bool:
        """Whether the user wants to prune through operators that mix along the removed axis."""
        return self._inexact

    def operand(self, index: int) -> Operand:
        """Return an operand with its labels. A constant that no node has labelled yet gets new labels.

        Raises:
            LockNodeError: the operand is absent or its shape is not known.
        """
        self._looked_at.add(index)
        facts, name = self._facts, self._operand_name(index)
        if name is None:
            raise LockNodeError(f"operand {index} is absent")
        shape = facts.shapes.shape(name)
        if shape is None:
            value = self._node.inputs[index]
            raise LockNodeError(f"the shape of {name} is not known{'' if value is None else remedy(value)}")
        if name not in facts.axes:
            if name not in facts.constants:
                raise LockNodeError(f"{name} has no labels")
            facts.axes[name] = tuple(facts.labels.new(size) if size > 1 else None for size in shape)
        if name in facts.constants:
            owners = facts.owners.setdefault(name, {})
            facts.titles[self.name] = self.where
            if self._node not in owners:
                owners[self._node] = self.name
                self._join_blocks(name)
        dynamic = facts.shapes.dynamic(name) or (True,) * len(shape)
        return Operand(name, shape, facts.axes[name], self.is_constant(index), dynamic, index)

    def _join_blocks(self, name: str) -> None:
        """Tie the blocks of an axis that another node has cut by blocks: this one may read it in another way."""
        joined: list[Axis] = []
        for axis in self._facts.axes[name]:
            if axis is None or axis.ndim == 1:
                joined.append(axis)
                continue
            self._facts.labels.tie(np.broadcast_to(axis[0], axis.shape), axis)
            joined.append(axis[0])
        self._facts.axes[name] = tuple(joined)

    def operands(self) -> list[Operand]:
        """Return all operands that are present, as ``operand`` does."""
        return [self.operand(index) for index in range(self.operand_count) if self.has_operand(index)]

    def is_constant(self, index: int) -> bool:
        """Tell whether an operand is a constant or computed from constants alone; False when it is absent.

        ``operand(index).constant`` says the same; this does not need its shape, and does not count as looking at it.
        """
        name = self._operand_name(index)
        return name in self._facts.constants or name in self._facts.derived

    def ignore_operand(self, index: int) -> None:
        """State that nothing depends on the sizes or values of an operand, such as the type in CastLike."""
        self._looked_at.add(index)

    def unread_operands(self) -> list[str]:
        """Return the names of operands that the rule has neither looked at nor ignored; the walk locks them."""
        values = enumerate(self._node.inputs)
        return [value.name or "" for index, value in values if value is not None and index not in self._looked_at]

    def require_integers(self, index: int, what: str) -> list[int]:
        """Return the integers of an operand that has to be known before running.

        Args:
            index: of the operand.
            what: they are, in the plural, for the message: ``"axes"``.

        Raises:
            LockNodeError: they are computed while running.
        """
        found = self.operand_integers(index)
        if found is None:
            raise LockNodeError(f"its {what} are computed while running")
        return found

    def result_shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the lengths of a result at one sample of the free input dimensions, before removal.

        Raises:
            LockNodeError: they are not known, or the result is absent.
        """
        name = self._result_name(index)
        shape = None if name is None else self._shapes.shape(name)
        if shape is None:
            raise LockNodeError("the shape of its result is not known")
        return shape

    def known_result_shape(self, index: int) -> tuple[int, ...]:
        """Return what ``result_shape`` does, or no lengths at all where they are not known."""
        return self._shapes.shape(self._result_name(index) or "") or ()

    def result_dynamic(self, index: int = 0) -> tuple[bool, ...]:
        """Tell for each axis of a result whether its length depends on a free input dimension.

        Raises:
            LockNodeError: the shape of the result is not known.
        """
        rank = len(self.result_shape(index))
        return self._shapes.dynamic(self._result_name(index) or "") or (True,) * rank

    def is_graph_output(self, index: int) -> bool:
        """Tell whether a result is an output of the model."""
        return index < self.result_count and self._node.outputs[index].is_graph_output()

    def is_result_read(self, index: int) -> bool:
        """Tell whether another node has a result as its operand."""
        return index < self.result_count and bool(self._node.outputs[index].uses())

    def result_elements_read(self, index: int = 0) -> set[int]:
        """Return which elements of a one-dimensional result other nodes read, as far as Gather and Slice tell."""
        (length,) = self.result_shape(index)
        uses = self._node.outputs[index].uses()
        return set[int]().union(*(self._elements_read_by(use.node, use.idx, length) for use in uses))

    def rows_per_sample(self, operand: Operand | None = None) -> float:
        """Return how many positions of the leading axis of an operand, else of the first result, are of one sample.

        One where the axis is the free batch. Where the batch is another axis, or merged with one, it is the share
        that makes the whole tensor that of one sample.

        Raises:
            LockNodeError: no operand is given, and the shape of the result is not known.
        """
        name = self._result_name(0) if operand is None else operand.name
        shape = self.result_shape() if operand is None else operand.shape
        flags, batch = self._shapes.dynamic(name or ""), self._shapes.batch
        if not shape or not flags or not any(flags):
            return shape[0] if shape else 1
        if any(free and size % batch == 0 for free, size in zip(flags, shape, strict=True)):
            return shape[0] / batch
        return 1 if flags[0] else shape[0]

    def is_locked(self, axis: Axis) -> bool:
        """Tell whether it is known already that no position of an axis may go."""
        return axis is None or bool(self._facts.labels.locked(axis).all())
