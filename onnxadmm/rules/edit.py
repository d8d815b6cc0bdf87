"""What a rewrite function sees: one node of the shrinking graph, and which positions of each axis stay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import free_name, new_initializer
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import Shapes

Positions = NDArray[np.int64]
Kept = Callable[[str], tuple[Positions | None, ...] | None]
Made = dict[tuple[str, tuple[int, ...], bytes], onnx_ir.Value]


class Edit:
    """One node, as its rewrite function sees it: sizes before and after, and the means to change the node.

    Constants may be shared between nodes, so a changed operand is always a new initializer; nodes that need equal ones
    share it in turn.

    Args:
        made: the new initializers so far, by their content; shared by the edits of all nodes.
    """

    def __init__(
        self, model: Model, node: onnx_ir.Node, shapes: Shapes, kept: Kept, names: set[str], made: Made
    ) -> None:
        self.node = node
        self._model = model
        self._shapes = shapes
        self._kept = kept
        self._names = names
        self._made = made

    def operand_name(self, index: int) -> str | None:
        """Return the name of an operand, None when it is absent."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None else value.name

    def result_name(self, index: int = 0) -> str | None:
        """Return the name of a result."""
        return self.node.outputs[index].name if index < len(self.node.outputs) else None

    def shape(self, name: str | None) -> tuple[int, ...]:
        """Return the sample shape before removal; the label function has seen to it that it is known."""
        shape = None if name is None else self._shapes.shape(name)
        assert shape is not None, name
        return shape

    def positions(self, name: str | None, axis: int) -> Positions | None:
        """Return the positions of an axis that stay, ascending; None when all do."""
        axes = None if name is None else self._kept(name)
        return None if axes is None else axes[axis]

    def size(self, name: str | None, axis: int) -> int:
        """Return the length of an axis after removal."""
        positions = self.positions(name, axis)
        return self.shape(name)[axis] if positions is None else int(positions.size)

    def changed(self, name: str | None) -> bool:
        """Tell whether any axis of a value shrinks."""
        axes = None if name is None else self._kept(name)
        return axes is not None and any(axis is not None for axis in axes)

    def value(self, index: int) -> np.ndarray | None:
        """Return the value of a small operand before removal, None when it is computed while running."""
        name = self.operand_name(index)
        return None if name is None else self._shapes.value(name)

    def partial(self, index: int) -> tuple[int | None, ...] | None:
        """Return the elements of a one-dimensional operand; None where an element depends on a free size."""
        name = self.operand_name(index)
        return None if name is None else self._shapes.partial(name)

    def partial_result(self) -> tuple[int | None, ...] | None:
        """Return the elements of a one-dimensional first result before removal, as ``partial`` does."""
        name = self.result_name()
        return None if name is None else self._shapes.partial(name)

    def values_of(self, value: onnx_ir.Value) -> list[int] | None:
        """Return the integers of any small value before removal; None when it is computed while running."""
        array = self._shapes.value(value.name or "")
        return None if array is None else [int(number) for number in array.reshape(-1)]

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that lists integers, or None when it is absent."""
        numbers = self.node.attributes.get_ints(name)
        return None if numbers is None else list(numbers)

    def integers_of(self, index: int) -> list[int] | None:
        """Return the integers of an operand before removal; None when absent or computed while running."""
        value = self.value(index)
        return None if value is None else [int(number) for number in value.reshape(-1)]

    @property
    def version(self) -> int:
        """Version of the operator set of the default domain that the model imports."""
        imports = self._model.ir.opset_imports
        return imports.get("", imports.get("ai.onnx", 1))

    def drop_attribute(self, name: str) -> None:
        """Remove an attribute if it is there."""
        self.node.attributes.pop(name, None)

    def set_integer(self, name: str, value: int) -> None:
        """Change an integer attribute."""
        self.node.attributes[name] = onnx_ir.AttrInt64(name, value)

    def set_integers(self, name: str, values: Sequence[int]) -> None:
        """Change an attribute that lists integers."""
        self.node.attributes[name] = onnx_ir.AttrInt64s(name, list(values))

    def set_operand(self, index: int, values: Sequence[int] | NDArray[np.int64]) -> None:
        """Replace an operand by a new constant of integers; int64 where it had no type."""
        old = self.operand_name(index) or "operand"
        replacement = self._constant(f"{old}_pruned", np.asarray(values, self._integers(old)))
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, replacement)

    def set_elements(self, index: int, values: Sequence[int | None]) -> None:
        """Replace an operand by these elements; those given as None are still computed while running."""
        if None not in values:
            self.set_operand(index, [value for value in values if value is not None])
            return
        old = self.node.inputs[index]
        before = self.partial(index)
        assert old is not None  # it was read before
        assert before is not None  # likewise
        chosen = self._choose(old, before, values)
        self.node.prepend(chosen)
        self.node.replace_input_with(index, chosen.outputs[0])

    def keep_result(
        self, after: Sequence[int | None], values: Sequence[int | None], needs: Callable[[onnx_ir.Node, int], bool]
    ) -> None:
        """Let some users of the first result see other elements than removal leaves there.

        Args:
            after: the elements after removal; None where they are computed while running.
            values: the elements wanted; None at the same places.
            needs: tells of a user and the index of its operand whether it is to see them.
        """
        result = self.node.outputs[0]
        uses = [use for use in result.uses() if needs(use.node, use.idx)]
        if not uses:
            return
        if None in values:
            chosen = self._choose(result, after, values)
            self.node.append(chosen)
            kept = chosen.outputs[0]
        else:
            known = np.asarray([value for value in values if value is not None], np.int64)
            kept = self._constant(f"{result.name}_pruned", known)
        for use in uses:
            use.node.replace_input_with(use.idx, kept)

    def gather_operand(self, index: int, axis: int, positions: Sequence[int] | Positions) -> None:
        """Let the node read only some positions of an axis of an operand, in this order."""
        old = self.node.inputs[index]
        assert old is not None  # the operand was read before
        where = self._constant(f"{old.name}_pruned", np.asarray(positions, dtype=np.int64))
        picked = onnx_ir.Node("", "Gather", inputs=[old, where], attributes=[onnx_ir.AttrInt64("axis", axis)])
        picked.outputs[0].name = free_name(f"{old.name}_picked", self._names)
        self.node.prepend(picked)
        self.node.replace_input_with(index, picked.outputs[0])

    def _integers(self, name: str | None) -> type[np.signedinteger[Any]]:
        """Return the type of integers of a value: operands that go together have to have the same."""
        dtype = None if name is None else self._shapes.dtype(name)
        return np.int32 if dtype == onnx_ir.DataType.INT32 else np.int64

    def _choose(self, old: onnx_ir.Value, before: Sequence[int | None], wanted: Sequence[int | None]) -> onnx_ir.Node:
        """Return a node, not yet in the graph, that gives ``wanted``, and elements of ``old`` where that is None.

        Where is younger than the oldest operator sets; there the difference to what ``old`` holds is added.
        """
        if self.version < 9:
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
