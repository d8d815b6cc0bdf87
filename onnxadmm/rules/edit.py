"""What a rewrite function sees: one node of the shrinking graph, and which positions of each axis stay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constant, free_name, new_initializer, remove_initializer, set_constant
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.node import NodeView
from onnxadmm.rules.vectors import changed_parts, readers_of_shapes, shown_axes

Positions = NDArray[np.int64]
Kept = Callable[[str], tuple[Positions | None, ...] | None]
AttributeValue = int | Sequence[int]
#: What ``Edit.write`` takes and gives.
Written = onnx_ir.Value
Made = dict[tuple[str, tuple[int, ...], bytes], onnx_ir.Value]


class PrunedValue:
    """An operand or result of a node: its lengths before and after removal, and which positions stay."""

    def __init__(self, name: str, shape: tuple[int, ...] | None, kept: tuple[Positions | None, ...] | None) -> None:
        self._name = name
        self._shape = shape
        self._kept = kept

    @property
    def name(self) -> str:
        """Name of the value."""
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths before removal, at one sample of the free input dimensions.

        Raises:
            LookupError: they are not known; the label function should have refused.
        """
        if self._shape is None:
            raise LookupError(f"the shape of {self._name} is not known")
        return self._shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def shrinks(self) -> bool:
        """Whether any axis shrinks."""
        return self._kept is not None and any(axis is not None for axis in self._kept)

    def positions(self, axis: int) -> Positions | None:
        """Return the positions of an axis that stay, int64 ascending; None when all do."""
        return None if self._kept is None else self._kept[axis]

    def size(self, axis: int) -> int:
        """Return the length of an axis after removal."""
        positions = self.positions(axis)
        return self.shape[axis] if positions is None else int(positions.size)


class Edit(NodeView):
    """One node, as its rewrite function sees it: sizes before and after, and the means to change the node.

    A rewrite function is called for nodes of which an operand or a result shrinks. Weights are cut by then; what it
    has to adapt are attributes and constant operands that name a size, a number of blocks, or a position. An operator
    without any needs no rewrite function.

    A shuffle reads an axis as ``[blocks, n]`` and writes it as ``[n, blocks]``. Its label function lets whole blocks
    go, so the attribute that counts them has to follow::

        def shuffle_blocks(visit: Visit) -> None:
            data = visit.operand(0)  # [N, blocks * n]
            labels = data.axes[1]
            if labels is not None:
                rows = labels.reshape(visit.integer("blocks", 1), -1)  # [blocks, n]
                visit.tie(np.broadcast_to(rows[:, :1], rows.shape), rows)
                labels = rows.T.reshape(-1)  # [blocks, n] -> [n * blocks]
            visit.set_result([data.axes[0], labels])


        def rewrite_blocks(edit: Edit) -> None:
            data = edit.operand(0)
            length = data.shape[1] // edit.integer("blocks", 1)
            edit.set_integer("blocks", data.size(1) // length)

    Constants may be shared between nodes, so a changed operand is always a new initializer; nodes that need equal ones
    share it in turn.
    """

    def __init__(
        self,
        model: Model,
        node: onnx_ir.Node,
        shapes: Shapes,
        kept: Kept,
        names: set[str],
        made: Made,
        following: set[onnx_ir.Node],
    ) -> None:
        """The edit of a node.

        Args:
            model: which shrinks; the node is in its graph.
            node: to be changed.
            shapes: before removal.
            kept: gives for the name of a value the positions of each axis that stay; None where all do.
            names: that are taken.
            made: the new initializers so far, by their content; shared by the edits of all nodes.
            following: nodes that read sizes as they are after removal; shared likewise.
        """
        super().__init__(node, shapes)
        self._model = model
        self._kept = kept
        self._names = names
        self._made = made
        self._following = following

    # -- what is there -------------------------------------------------------------------------------

    def operand(self, index: int) -> PrunedValue:
        """Return an operand.

        Raises:
            LookupError: it is absent, see ``has_operand``.
        """
        return self._pruned(self._operand_name(index), f"operand {index}")

    def result(self, index: int = 0) -> PrunedValue:
        """Return a result.

        Raises:
            LookupError: it is absent, see ``has_result``.
        """
        return self._pruned(self._result_name(index), f"result {index}")

    @property
    def is_affected(self) -> bool:
        """Whether any operand or result shrinks."""
        values = [value.name for value in (*self._node.inputs, *self._node.outputs) if value is not None]
        return any(self._pruned(name, "it").shrinks for name in values if name)

    def sizes_left(self) -> list[int | None] | None:
        """Return the sizes that a Shape node gives after removal; None for those that depend on a free dimension.

        All is None where nothing is known of them.
        """
        before, data = self.partial_result_value(), self.operand(0)
        if before is None:
            return None
        axes = shown_axes(self, data.rank)
        return [None if size is None else data.size(axis) for axis, size in zip(axes, before, strict=True)]

    def dtype(self, index: int) -> np.dtype[Any]:
        """Return the type of the numbers of an operand.

        Raises:
            LookupError: it is not known.
        """
        name = self._operand_name(index)
        dtype = None if name is None else self._shapes.dtype(name)
        if dtype is None:
            raise LookupError(f"the type of operand {index} of {self.where} is not known")
        return np.dtype(dtype.numpy())

    def _pruned(self, name: str | None, what: str) -> PrunedValue:
        if not name:
            raise LookupError(f"{what} of {self.where} is absent")
        return PrunedValue(name, self._shapes.shape(name), self._kept(name))

    # -- changing the node ---------------------------------------------------------------------------

    def remove_attribute(self, name: str) -> None:
        """Remove an attribute if it is there."""
        self._node.attributes.pop(name, None)

    def set_integer(self, name: str, value: int) -> None:
        """Change an integer attribute."""
        self._node.attributes[name] = onnx_ir.AttrInt64(name, value)

    def set_integers(self, name: str, values: Sequence[int]) -> None:
        """Change an attribute that lists integers."""
        self._node.attributes[name] = onnx_ir.AttrInt64s(name, list(values))

    def set_number(self, name: str, value: float) -> None:
        """Change a floating-point attribute."""
        self._node.attributes[name] = onnx_ir.AttrFloat32(name, value)

    def set_operand(self, index: int, values: Sequence[int | None] | NDArray[np.int64]) -> None:
        """Replace an operand by a new constant of integers, of the type it had; int64 where it was absent.

        Args:
            index: of the operand.
            values: an array of any shape, which may be a single number, or a list of elements. Those given as None
                are still computed while running: ``partial_value`` gives as many elements, and None for them as well.
        """
        if isinstance(values, Sequence) and None in values:
            old, before = self._node.inputs[index], self.partial_value(index)
            if old is None or before is None:
                raise LookupError(f"operand {index} of {self.where} has no elements that are computed while running")
            self._adapt_vector(index, old, before, values)
            return
        name = self._operand_name(index) or "operand"
        replacement = self._constant(f"{name}_pruned", np.asarray(values, self._integers(name)))
        if index >= len(self._node.inputs):
            self._node.resize_inputs(index + 1)
        self._node.replace_input_with(index, replacement)

    def keep_result(self, after: Sequence[int | None]) -> None:
        """Let users of the first result, a vector of sizes, see the elements from before removal.

        Users that read only elements which removal does not change are left alone, and those that need them as they are
        afterwards.

        Args:
            after: the elements after removal; None where ``partial_result_value`` gives None.
        """
        before = self.partial_result_value()
        if before is None:
            raise LookupError(f"nothing is known of the result of {self.where}")
        changed = {index for index, (new, old) in enumerate(zip(after, before, strict=True)) if new != old}
        result = self._node.outputs[0]
        uses = [use for use in result.uses() if use.node not in self._following]
        uses = [use for use in uses if changed & self._elements_read_by(use.node, use.idx, len(before))]
        if not uses:
            return
        if None in before:
            chosen = self._choose(result, after, before)
            self._node.append(chosen)
            kept = chosen.outputs[0]
        else:
            known = np.asarray([value for value in before if value is not None], np.int64)
            kept = self._constant(f"{result.name}_pruned", known)
        for use in uses:
            use.node.replace_input_with(use.idx, kept)

    def scale_result(self, factor: float) -> None:
        """Multiply the first result, of floating-point numbers, by a constant; it keeps its name.

        A mean over an axis that has lost positions is right again with the share of those that stay.
        """
        result = self._node.outputs[0]
        dtype = self._shapes.dtype(result.name or "")
        if dtype is None or not dtype.is_floating_point():
            raise LookupError(f"the result of {self.where} is of no floating-point type")
        share = self._constant(f"{result.name}_share", np.asarray(factor).astype(dtype.numpy()))
        scaled = onnx_ir.Node("", "Mul", inputs=[result, share])
        self._node.append(scaled)
        self._take_over(result, scaled.outputs[0])

    def write(self, operator: str, *operands: Written | NDArray[Any], **attributes: AttributeValue) -> Written:
        """Put a node of the default domain in front of this one, for ``replace_by``.

        Args:
            operator: such as ``"Mul"``.
            operands: results of other such nodes, what ``value_of_operand`` gives, or arrays, which become constants.
            attributes: integers, or lists of integers.

        Returns:
            the first result.
        """
        inputs = [
            operand if isinstance(operand, onnx_ir.Value) else self._constant("number", operand) for operand in operands
        ]
        node = onnx_ir.node(operator, inputs, attributes)
        # Short: in a small file the names of many such nodes would weigh more than the weights that go.
        node.outputs[0].name = free_name(operator.lower(), self._names)
        self._node.prepend(node)
        return node.outputs[0]

    def value_of_operand(self, index: int) -> Written:
        """Return an operand for ``write``.

        Raises:
            LookupError: it is absent, see ``has_operand``.
        """
        value = self._node.inputs[index] if index < len(self._node.inputs) else None
        if value is None:
            raise LookupError(f"operand {index} of {self.where} is absent")
        return value

    def replace_by(self, *results: Written | None) -> None:
        """Take the node out of the graph: what was written gives its results, which keep their names.

        Args:
            results: for each result of the node; None, or nothing at the end, for one that nobody reads.
        """
        for old, new in zip(self._node.outputs, results, strict=False):
            if new is not None and old.name:
                self._take_over(old, new)
        if self._node.graph is not None:
            self._node.graph.remove(self._node, safe=True)

    def _take_over(self, old: onnx_ir.Value, new: onnx_ir.Value) -> None:
        """Let whoever reads a result read another, which gets its name; the node that computes the other may go on."""
        new.shape, new.type = old.shape, old.type
        node = new.producer()
        for use in tuple(old.uses()):
            if use.node is not node:
                use.node.replace_input_with(use.idx, new)
        graph = self._node.graph
        outputs = graph.outputs if isinstance(graph, onnx_ir.Graph) else []
        for index, value in enumerate(outputs):
            if value is old:
                outputs[index] = new
        name, old.name = old.name, None
        old.name = free_name(f"{name}_unscaled", self._names)
        new.name = name

    def scale_operand(self, index: int, factor: float) -> None:
        """Multiply an operand, of floating-point numbers, by a constant.

        A weight is replaced by one that is multiplied. Other readers keep the one they have; the last that changes
        takes the name over, so that a weight which all of its readers multiply alike keeps it. What is computed while
        running is multiplied in front of the node.
        """
        old = self._node.inputs[index]
        dtype = None if old is None else self._shapes.dtype(old.name or "")
        if old is None or dtype is None or not dtype.is_floating_point():
            raise LookupError(f"operand {index} of {self.where} is of no floating-point type")
        array = constant(old)
        if array is None:
            share = self._constant(f"{old.name}_share", np.asarray(factor).astype(dtype.numpy()))
            scaled = onnx_ir.Node("", "Mul", inputs=[old, share])
            scaled.outputs[0].name = free_name(f"{old.name}_scaled", self._names)
            self._node.prepend(scaled)
            self._node.replace_input_with(index, scaled.outputs[0])
            return
        product = (array.astype(np.float64) * factor).astype(array.dtype)
        key = (f"{old.name} times {factor!r}", array.shape, b"")
        others = [use for use in old.uses() if use.node is not self._node or use.idx != index]
        if others or old.is_graph_output():
            if key not in self._made:
                self._made[key] = new_initializer(self._model, f"{old.name}_pruned", product, taken=self._names)
            self._node.replace_input_with(index, self._made[key])
            return
        set_constant(self._model, old, product)
        shared = self._made.pop(key, None)
        if shared is not None:
            for use in tuple(shared.uses()):
                use.node.replace_input_with(use.idx, old)
            remove_initializer(self._model, shared)
            self._names.discard(shared.name or "")

    def gather_operand(self, index: int, axis: int, positions: Sequence[int] | Positions) -> None:
        """Let the node read only some positions of an axis of an operand, counted after removal, in this order."""
        old = self._node.inputs[index]
        if old is None:
            raise LookupError(f"operand {index} of {self.where} is absent")
        where = self._constant(f"{old.name}_pruned", np.asarray(positions, dtype=np.int64))
        picked = onnx_ir.Node("", "Gather", inputs=[old, where], attributes=[onnx_ir.AttrInt64("axis", axis)])
        picked.outputs[0].name = free_name(f"{old.name}_picked", self._names)
        self._node.prepend(picked)
        self._node.replace_input_with(index, picked.outputs[0])

    def _integers(self, name: str | None) -> type[np.signedinteger[Any]]:
        """Return the type of integers of a value: operands that go together have to have the same."""
        dtype = None if name is None else self._shapes.dtype(name)
        return np.int32 if dtype == onnx_ir.DataType.INT32 else np.int64

    def _adapt_vector(
        self, index: int, old: onnx_ir.Value, before: Sequence[int | None], wanted: Sequence[int | None]
    ) -> None:
        """Let the node read ``wanted`` in the place of a vector of sizes, with as few new nodes as that takes."""

        def after(shape: onnx_ir.Node) -> Sequence[int | None] | None:
            edit = Edit(self._model, shape, self._shapes, self._kept, self._names, self._made, self._following)
            return edit.sizes_left()

        readers = readers_of_shapes(old, wanted, after=after, opset=self.opset_version)
        self._following.update(readers)
        if readers:
            return
        parts = changed_parts(old, self._shapes, before, wanted)
        joins = old.producer()
        if parts is not None and joins is not None:
            for place, array in parts.items():
                joins.replace_input_with(place, self._constant(f"{old.name}_pruned", array))
            return
        content = (f"{old.name} chosen", (len(wanted),), repr(list(wanted)).encode())
        known = self._made.get(content)
        chosen = None if known is None else known.producer()
        if chosen is None or chosen.graph is None:
            chosen = self._choose(old, before, wanted)
            self._made[content] = chosen.outputs[0]
        else:
            chosen.graph.remove(chosen)  # this node comes before those that read it already
        self._node.prepend(chosen)
        self._node.replace_input_with(index, chosen.outputs[0])

    def _choose(self, old: onnx_ir.Value, before: Sequence[int | None], wanted: Sequence[int | None]) -> onnx_ir.Node:
        """Return a node, not yet in the graph, that gives ``wanted``, and elements of ``old`` where that is None.

        Where is younger than the oldest operator sets; there the difference to what ``old`` holds is added.
        """
        if self.opset_version < 9:
            pairs = zip(wanted, before, strict=True)
            difference = [0 if new is None or now is None else new - now for new, now in pairs]
            added = self._constant(f"{old.name}_pruned", np.asarray(difference, self._integers(old.name)))
            choice = onnx_ir.Node("", "Add", inputs=[old, added])
        else:
            known = self._constant(f"{old.name}_known", np.asarray([size is not None for size in wanted]))
            added = self._constant(
                f"{old.name}_pruned", np.asarray([size or 0 for size in wanted], self._integers(old.name))
            )
            choice = onnx_ir.Node("", "Where", inputs=[known, added, old])
        choice.outputs[0].name = free_name(f"{old.name}_chosen", self._names)
        return choice

    def _constant(self, name_hint: str, array: NDArray[Any]) -> onnx_ir.Value:
        content = (array.dtype.str, array.shape, array.tobytes())
        if content not in self._made:
            self._made[content] = new_initializer(self._model, name_hint, array, taken=self._names)
        return self._made[content]
