"""What a label function sees and may say: one node, the labels of its operands, and facts about them."""

from collections.abc import Sequence

import numpy as np

from onnxadmm.graph.constants import FLOATS
from onnxadmm.rules.facts import ActivationRead, Axis, Columns, CostTerm, Operand, Read, Regrouped
from onnxadmm.rules.flattening import flattens
from onnxadmm.rules.labels import LabelArray
from onnxadmm.rules.node import LockNodeError
from onnxadmm.rules.operands import LabelledNode
from onnxadmm.rules.zeros import state_by_hand, state_zero_point

__all__ = ["LockNodeError", "Visit"]


class Visit(LabelledNode):
    """One node, as its label function sees it.

    A label function reads the operands, says which of their positions live and die together (``tie``) and which have
    to stay (``lock``), and gives the labels of every result (``set_result``). It has to be right for every plan:
    whichever positions go, the node without them computes what it computed with the readers of those positions zero.
    A case that it does not cover it refuses with ``LockNodeError``; an operand that it does not look at is taken for
    plain numbers, all of which stay. Both are safe.

    An operator that works position by position passes the labels of its operand on::

        def scale(visit: Visit) -> None:
            visit.set_result(visit.operand(0).axes)

    A product with a weight reads one axis of it and writes the other. Zeros in the axis that reads are what hides a
    unit, so it has to be named; what has one entry per column goes with the columns::

        def product_with_bias(visit: Visit) -> None:
            data, weight, bias = visit.operand(0), visit.operand(1), visit.operand(2)  # [..., K], [K, N], [N]
            if not weight.constant:
                raise LockNodeError("has a weight that is computed while running")
            visit.tie(data.axes[-1], weight.axes[0], "reads features that stay")
            visit.mark_reader(weight, 0)
            columns = visit.tie(weight.axes[1], bias.axes[0])
            visit.set_result([*data.axes[:-1], columns])
            sizes = [visit.rows_per_sample(), *visit.result_shape()[1:], weight.shape[0]]
            visit.add_macs(sizes, [*data.axes[:-1], columns, weight.axes[0]])

    An operator that mixes along an axis, so that a position which goes changes the others, locks it::

        def running_maximum(visit: Visit) -> None:
            data = visit.operand(0)
            axis = visit.axis_attribute("axis", -1, data.rank)
            visit.lock(data.axes[axis], "compares positions along it")
            visit.set_result([None if index == axis else labels for index, labels in enumerate(data.axes)])

    An operator that sums over runs of positions needs equally many of each run, and no weight behind it tells them
    apart: ``mark_summed`` has them multiplied by zero in front of it::

        def block_sum(visit: Visit) -> None:
            data = visit.operand(0)  # [N, blocks * size]
            if data.axes[1] is not None:
                visit.balance(data.axes[1].reshape(-1, visit.integer("size", 1)))  # [blocks, size]
                visit.mark_summed(data, 1)
            visit.set_result([data.axes[0], None])

    Labels are numpy arrays, so an operator that moves positions moves labels: ``labels.repeat(4)`` is what a flatten
    does, ``np.concatenate`` a concat. Where an attribute names a size, see ``Edit``.
    """

    # -- what lives and dies together, and what stays ------------------------------------------------

    def set_result(self, axes: Sequence[Axis], *, index: int = 0) -> None:
        """State the labels of a result; nothing happens when the node does not have it.

        Args:
            axes: for each axis int64 ``[length]``, or None for an axis that stays. Axes of length one stay anyway.
            index: of the result.

        Raises:
            LockNodeError: the shape of the result is not known, or does not fit: there are more or fewer axes, or an
                axis has more or fewer labels than positions.
        """
        name = self._result_name(index)
        if not name:
            return
        shape = self.result_shape(index)
        if len(axes) != len(shape):
            raise LockNodeError(f"has a result of rank {len(shape)} where its operands give {len(axes)}")
        for axis, size in zip(axes, shape, strict=True):
            if axis is not None and axis.shape != (size,):
                raise LockNodeError(f"has {size} positions in its result where its operands give {axis.shape[-1]}")
            self._facts.labels.count_positions(axis)
        self._facts.axes[name] = tuple(axis if size > 1 else None for axis, size in zip(axes, shape, strict=True))

    def set_unsized_result(self, axes: Sequence[Axis], *, index: int) -> None:
        """State the labels of a result whose lengths need not be known: whatever reads it then locks them."""
        if name := self._result_name(index):
            self._facts.axes[name] = tuple(axes)

    def tie(self, first: Axis, second: Axis, why: str = "ties it to positions that stay") -> Axis:
        """Make two axes live and die together, position by position; an axis that stays locks the other.

        Args:
            first: int64 ``[n]``, or None for an axis that stays.
            second: likewise; its length is the same.
            why: the other is locked when one stays, see ``lock``.

        Returns:
            the tied axis, None when it stays.

        Raises:
            LockNodeError: the lengths differ.
        """
        if first is None or second is None:
            for axis in (first, second):
                self.lock(axis, why)
            return None
        if first.shape != second.shape:
            raise LockNodeError(f"meets {second.shape[-1]} positions with {first.shape[-1]}")
        self._facts.labels.tie(first, second)
        return first

    def tie_broadcast(self, operands: Sequence[Operand], shape: Sequence[int]) -> list[Axis]:
        """Tie operands that are broadcast to ``shape`` and return the axes of the result.

        Axes of size one repeat and say nothing; an axis that stays locks the axes it meets.
        """
        result: list[Axis] = []
        for position, size in enumerate(shape):
            met: list[Axis] = []
            for operand in operands:
                index = position - (len(shape) - operand.rank)
                if index >= 0 and operand.shape[index] == size and size > 1:
                    met.append(operand.axes[index])
            axis = met[0] if met else None
            for other in met[1:]:
                if axis is not None or other is not None:
                    axis = self.tie(axis, other, "joins it with positions that stay")
            result.append(axis)
        return result

    def lock(self, axis: Axis, why: str) -> None:
        """Make the positions of an axis stay; nothing happens to an axis that is None.

        Args:
            axis: labels of any shape, or None.
            why: goes on where the name of the node ends, and the user reads it: ``"mixes along it"``.
        """
        if axis is not None:
            self._facts.labels.lock(axis, f"{self.where} {why}")

    def lock_operand(self, operand: Operand, why: str, *, except_axes: Sequence[int] = ()) -> None:
        """Lock every axis of an operand but those in ``except_axes``, which count from the front."""
        for index, axis in enumerate(operand.axes):
            if index not in except_axes:
                self.lock(axis, why)

    def lock_unless_inexact(self, axis: Axis, why: str = "mixes along it") -> Axis:
        """State that removing positions of an axis changes the others: they stay, unless inexact pruning is wanted.

        Returns:
            the axis when it may shrink nevertheless, else None.
        """
        if axis is None:
            return None
        if not self._inexact:
            self.lock(axis, why)
            return None
        self._facts.inexact.append((self.where, axis))
        return axis

    def keep_whole(self, weight: Operand, axes: Sequence[int]) -> None:
        """Keep axes of a weight that are no units at all, such as kernel sizes: the user does not hear of them."""
        for index in axes:
            self.lock(weight.axes[index], "needs it whole")
            self._facts.whole.add((weight.name, index))

    # -- labels that are not those of an operand -----------------------------------------------------

    def new_labels(self, length: int) -> LabelArray:
        """Return new labels, int64 ``[length]``, for positions that this node creates, such as padding."""
        return self._facts.labels.new(length)

    def new_locked_labels(self, length: int, why: str) -> LabelArray:
        """Return labels of positions that stay, int64 ``[length]``, for use beside others that may go."""
        return self._facts.labels.new_locked(length, f"{self.where} {why}")

    def new_copy_labels(self, length: int) -> LabelArray:
        """Return new labels for positions that are all alike; where a reshape leaves a choice, others carry the units.

        Copies of a key head beside other key heads go with the head that they copy.
        """
        labels = self.new_labels(length)
        self._facts.copies.add(int(labels[0]))
        return labels

    def select(self, labels: LabelArray, positions: LabelArray) -> LabelArray:
        """Return the labels at some positions; they become units that compete among themselves.

        Otherwise a plan could remove all of them and leave an empty axis.
        """
        selected = labels[positions]
        self._facts.selections.append(selected)
        return selected

    def columns(self, data: Operand, axis: int) -> Axis:
        """Return labels of the columns that a Gather picks behind a flattening, where they are units of their own.

        They are those of the indices, which are what is cut. The positions that they are picked from are nobody's
        choice any more: they stay, or follow the last of their columns.

        Args:
            data: what the node picks from, its first operand; the second are the indices.
            axis: along which.

        Returns:
            int64 ``[indices]``; None where nobody has asked for that, or it is another kind of Gather.
        """
        indices, name, result = self.value(1), self._operand_name(1), self._result_name(0)
        if not self._features or data.constant or indices is None or indices.ndim != 1 or indices.size < 2:
            return None
        source, ascends = self._node.inputs[0], indices[0] >= 0 and bool((np.diff(indices) > 0).all())
        node = None if source is None else source.producer()
        if node is None or not ascends or name not in self._facts.constants or not flattens(self._facts, node, axis):
            return None
        labels, picked = self.operand(1).axes[0], data.axes[axis]
        if labels is None or result is None or name is None:
            return None
        if picked is not None:
            picked = picked[indices.astype(np.int64)]
            reason = f"{self.where} picks its columns, which are units of their own"
            self._facts.labels.lock(np.unique(picked), reason, firm=False)
        self._facts.columns.append(Columns(result, name, picked, labels))
        return labels

    def regroup(self, sources: Sequence[tuple[int, Axis]], targets: Sequence[tuple[int, Axis]]) -> None:
        """State that a run of axes becomes another run with the same positions in row-major order, as in a reshape.

        Which axis of each side carries the units is settled when all locks are known.

        Args:
            sources: size and labels of each axis before, ``[(12, labels)]``.
            targets: size and labels of each axis after, ``[(3, new_labels), (4, other_new_labels)]``.
        """
        self._facts.regrouped.append(Regrouped(self.where, tuple(sources), tuple(targets)))

    # -- what reads, what is balanced, what it costs -------------------------------------------------

    def mark_reader(self, weight: Operand, axis: int) -> None:
        """State that an axis of a weight consumes its positions: zeros there hide them from all that follows.

        Call it after the axis was tied to what it consumes, also where that stays. Nothing happens for an axis that
        is None.
        """
        labels = weight.axes[axis]
        if labels is not None:
            self._facts.reads.append(Read(self.where, weight.name, axis, labels))

    def mark_summed(self, operand: Operand, axis: int) -> None:
        """State that the node sums over an axis of an activation, to which a position that is zero adds nothing.

        What cannot be multiplied by zeros and ones, one for each position, locks.
        """
        labels, result = operand.axes[axis], self._result_name(0)
        if labels is None:
            return
        if operand.dynamic[axis]:
            self.lock(labels, "sums over it at a size that is not known")
        elif operand.index is None or result is None or self._shapes.dtype(operand.name) not in FLOATS:
            self.lock(labels, "sums over it in other numbers than floats")
        else:
            read = ActivationRead(result, operand.index, operand.name, axis, labels)
            self._facts.activation_reads.append(read)

    def contract(self, first: Operand, first_axis: int, second: Operand, second_axis: int) -> Axis:
        """Tie two axes over whose product the node sums; the operand that is constant reads them, else the sum does.

        Returns:
            the axis when it may shrink.
        """
        left, right = first.axes[first_axis], second.axes[second_axis]
        if first.constant and second.constant:
            self.lock(left, "contracts two constants")
            self.lock(right, "contracts two constants")
            return None
        if not first.constant and not second.constant:
            tied = self.tie(left, right, "contracts it with positions that stay")
            self.mark_summed(first, first_axis)
            return tied
        tied = self.tie(left, right, "reads features that stay")
        self.mark_reader(*((first, first_axis) if first.constant else (second, second_axis)))
        return tied

    def balance(self, blocks: LabelArray) -> None:
        """State that every row of ``[blocks, n]`` must keep equally many positions, as the groups of a Conv do."""
        self._facts.balances.append((self.where, blocks))

    def label_by_blocks(self, weight: Operand, axis: int, blocks: LabelArray, *, reads: bool = True) -> Axis:
        """Give an axis of a weight labels that depend on the block of axis 0, as in a Conv with groups.

        Where another node has labelled this axis already, or the weight is computed, the blocks are tied
        to each other instead, which is coarser and still exact.

        Args:
            weight: a weight whose axis 0 is that many blocks of equal length.
            axis: of length n.
            blocks: labels ``[blocks, n]``.
            reads: whether the axis consumes these positions, or writes them.

        Returns:
            the labels that the axis has from now on: ``blocks``, or those it had.
        """
        facts = self._facts
        untouched = weight.name in facts.constants and list(facts.owners.get(weight.name, ())) == [self._node]
        if untouched and weight.shape[axis] > 1:
            axes = list(weight.axes)
            axes[axis] = blocks
            facts.axes[weight.name] = tuple(axes)
            if reads:
                facts.reads.append(Read(self.where, weight.name, axis, blocks))
            return blocks
        for row in blocks[1:]:
            facts.labels.tie(blocks[0], row)
        own = self.tie(weight.axes[axis], blocks[0] if weight.shape[axis] > 1 else None)
        if own is None:
            for row in blocks:
                self.lock(row, "reads it through an axis of size one")
        elif reads:
            self.mark_reader(weight, axis)
        return own

    def add_macs(self, sizes: Sequence[float], axes: Sequence[Axis]) -> None:
        """State multiply-accumulates of the node for one sample: the product of ``sizes``.

        A node that calls it twice costs the sum; one that does not call it costs nothing.

        Args:
            sizes: factors before removal. One may be a share of its axis, which then holds several samples.
            axes: for each factor the axis with which it shrinks, or None.
        """
        constant = 1.0
        labelled: list[LabelArray] = []
        for size, axis in zip(sizes, axes, strict=True):
            constant *= size
            if axis is not None:
                constant /= axis.shape[-1]
                labelled.append(axis)
        self._facts.mac_terms.append(CostTerm(self.name, constant, tuple(labelled)))

    def mark_head(self, axis: Axis) -> None:
        """State that each position of an axis is a complete head.

        It carries the units where a reshape has a choice and no axis that weights write and read.
        """
        if axis is not None:
            self._facts.labels.mark_head(axis)

    # -- quantised numbers ---------------------------------------------------------------------------

    def mark_scale(self, operand: Operand) -> None:
        """State that an operand is a scale or a zero point, which nobody counts as parameters."""
        self._facts.scales.add(operand.name)

    def mark_weight(self, operand: Operand) -> None:
        """State that an operand counts as parameters whatever its type, such as a bias in int32."""
        self._facts.zero_points.setdefault(operand.name, None)

    def mark_zero_point(self, weight: Operand, index: int | None, *, axis: int) -> None:
        """State which number stands for zero in a quantised weight.

        Args:
            weight: an operand that is constant.
            index: of the operand that holds the zero point, a single number or one per position of an axis of the
                weight. None, or an operand that is absent, is 0.
            axis: that axis.

        Raises:
            LockNodeError: the zero point is computed while running, or another one belongs to the same weight, or the
                weight is moved about first and has one per channel.
        """
        point = self.operand(index) if index is not None and self.has_operand(index) else None
        state_zero_point(self._facts, weight, point, axis)

    def mark_steps_by_hand(self) -> None:
        """State which zeros stay zeros where a Sub and a Div turn the bytes of a weight into floats."""
        state_by_hand(self._facts, self._node)

    def mark_quantised_result(self, index: int) -> None:
        """State that the first result is quantised, with the zero point in operand ``index``; 0 when absent."""
        self._facts.quantised[self._result_name(0) or ""] = self._operand_name(index)
