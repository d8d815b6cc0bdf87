"""Values of small tensors without running the model: shape arithmetic, element by element.

Every tensor is followed at two samples of the free input dimensions, together with a mask of the elements that depend
on them. So of ``Concat(Gather(Shape(x), 0), [12, -1])`` the first element is known to vary and the others to stay,
also where both samples happen to give the same number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxadmm.operators.nodes import attributes, model_of_node
from onnxadmm.operators.table import find

Array = NDArray[Any]

LARGEST_INTEGERS = 4096  # elements; integers and booleans beyond this are data, not shapes
LARGEST_FLOATS = 64  # elements; enough for scales, regions of interest and limits


@dataclass(frozen=True)
class Known:
    """A tensor's value at both samples.

    Attributes:
        first, second: the values; their shapes differ where the shape itself depends on a free dimension.
        free: shape of ``first``; True where an element depends on a free dimension.
    """

    first: Array
    second: Array
    free: NDArray[np.bool_]

    @staticmethod
    def constant(array: Array) -> "Known":
        """A value that depends on nothing."""
        return Known(array, array, np.zeros(array.shape, dtype=np.bool_))

    @staticmethod
    def dimensions(first: Sequence[int], second: Sequence[int]) -> "Known":
        """The int64 vector that ``Shape`` gives."""
        lengths = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
        return Known(*lengths, lengths[0] != lengths[1])


def small_enough(dtype: onnx_ir.DataType, size: int) -> bool:
    """Whether a tensor of this type and element count is worth following."""
    if dtype in (onnx_ir.DataType.STRING, onnx_ir.DataType.UNDEFINED):
        return False
    return size <= (LARGEST_FLOATS if dtype.is_floating_point() else LARGEST_INTEGERS)


def fold(node: onnx.NodeProto, inputs: Sequence[Known | None], opset: int) -> list[Known] | None:
    """Evaluate one node of the default domain; None when that is not possible.

    Args:
        node: its outputs must be small; the caller has inferred their shapes.
        inputs: one per input of the node, None for an omitted optional one.
    """
    if not find("", node.op_type).pure or any(attribute.HasField("g") for attribute in node.attribute):
        return None
    given = [known for known in inputs if known is not None]
    try:
        first = evaluate(node, [None if known is None else known.first for known in inputs], opset)
        second = first
        if any(known.first is not known.second for known in given):
            second = evaluate(node, [None if known is None else known.second for known in inputs], opset)
        return [
            Known(a, b, _free(node, inputs, opset, number, a, b))
            for number, (a, b) in enumerate(zip(first, second, strict=True))
        ]
    except Exception:  # whatever an operator's evaluation raises, its value is just not known
        return None


def _free(
    node: onnx.NodeProto,
    inputs: Sequence[Known | None],
    opset: int,
    number: int,
    first: Array,
    second: Array,
) -> NDArray[np.bool_]:
    """Which elements of output ``number`` depend on a free dimension."""
    masks = [None if known is None else known.free for known in inputs]
    if not any(mask is not None and mask.any() for mask in masks):
        return np.zeros(first.shape, dtype=np.bool_)
    everything = np.ones(first.shape, dtype=np.bool_)
    if first.shape != second.shape:
        return everything
    if node.op_type == "Where":
        condition, left, right = (known for known in inputs if known is not None)
        return np.where(condition.first, left.free, right.free) | condition.free
    operator = find("", node.op_type)
    if operator.moves is not None:
        moved = operator.data_count(len(masks))
        if any(mask is not None and mask.any() for mask in masks[moved:]):
            return everything
        rest = [None if known is None else known.first for known in inputs[moved:]]
        data = [None if mask is None else mask.astype(np.int64) for mask in masks[:moved]]
        return evaluate(node, [*data, *rest], opset)[number].astype(np.bool_)
    if operator.elementwise:
        free = np.zeros(first.shape, dtype=np.bool_)
        for mask in masks:
            if mask is not None:
                free = free | mask
        return free
    return everything


def evaluate(node: onnx.NodeProto, arrays: Sequence[Array | None], opset: int) -> list[Array]:
    """Compute what one node of the default domain gives: an array for every output that has a name.

    Shape arithmetic is computed directly, all else by ONNX's own reference implementation, which knows every version
    of every operator. A result may be a view of an operand.

    Args:
        arrays: one per input of the node, None for an omitted optional one.

    Raises:
        Exception: of whatever kind, where the operands do not fit the operator.
    """
    direct = _DIRECT.get(node.op_type)
    with np.errstate(all="ignore"):
        if direct is not None:
            return [np.asarray(direct(arrays, attributes(node)))]
        feeds = {name: array for name, array in zip(node.input, arrays, strict=True) if array is not None}
        results = ReferenceEvaluator(model_of_node(node, opset=opset)).run(None, feeds)
    return [np.asarray(result) for result in results]


# What shape chains are made of, directly: the reference implementation takes a third of a millisecond per node.

_Attributes = Mapping[str, Any]
_Direct = Callable[[Sequence[Any], _Attributes], Any]


def _axes(arrays: Sequence[Any], given: _Attributes) -> tuple[int, ...] | None:
    """Axes of Squeeze and Unsqueeze: an attribute below opset 13, the second input from there on."""
    if len(arrays) > 1 and arrays[1] is not None:
        return tuple(int(axis) for axis in np.atleast_1d(arrays[1]))
    axes = given.get("axes")
    return None if axes is None else tuple(int(axis) for axis in axes)


def _slice(arrays: Sequence[Any], given: _Attributes) -> Any:
    data = arrays[0]
    if len(arrays) > 1:  # from opset 10 on, inputs
        starts, ends = arrays[1], arrays[2]
        axes = arrays[3] if len(arrays) > 3 and arrays[3] is not None else range(len(starts))
        steps = arrays[4] if len(arrays) > 4 and arrays[4] is not None else [1] * len(starts)
    else:
        starts, ends = given["starts"], given["ends"]
        axes, steps = given.get("axes", range(len(starts))), [1] * len(starts)
    chosen = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Going backwards, an end below -length means "through the first", which Python spells None.
        stop = None if step < 0 and end < -data.shape[axis] else int(end)
        chosen[int(axis)] = slice(int(start), stop, int(step))
    return data[tuple(chosen)]


def _reshape(arrays: Sequence[Any], given: _Attributes) -> Any:
    data, target = arrays
    if given.get("allowzero", 0):
        return data.reshape(tuple(target))
    return data.reshape([data.shape[axis] if length == 0 else length for axis, length in enumerate(target)])


def _unsqueeze(arrays: Sequence[Any], given: _Attributes) -> Any:
    axes = _axes(arrays, given)
    return np.expand_dims(arrays[0], axes if axes is not None else ())


def _cast(arrays: Sequence[Any], given: _Attributes) -> Any:
    return arrays[0].astype(onnx_ir.DataType(given["to"]).numpy())


def _divide(arrays: Sequence[Any], _: _Attributes) -> Any:
    left, right = arrays
    if not np.issubdtype(left.dtype, np.integer):
        return left / right
    if not np.all(right):
        raise ZeroDivisionError
    return (left - np.fmod(left, right)) // right  # towards zero, as in C


def _fill(arrays: Sequence[Any], given: _Attributes) -> Any:
    tensor = given.get("value")
    element = np.zeros(1, dtype=np.float32) if tensor is None else numpy_helper.to_array(tensor)
    return np.full(tuple(arrays[0]), element.reshape(-1)[0], dtype=element.dtype)


def _elementwise(function: Callable[..., Any]) -> _Direct:
    return lambda arrays, _: function(*arrays)


def _expand(arrays: Sequence[Any], _: _Attributes) -> Any:
    data, target = arrays
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(target)))


_DIRECT: dict[str, _Direct] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Div": _divide,
    "Equal": _elementwise(np.equal),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Sub": _elementwise(np.subtract),
    "Cast": _cast,
    "Concat": lambda arrays, given: np.concatenate(arrays, axis=given["axis"]),
    "ConstantOfShape": _fill,
    "Expand": _expand,
    "Gather": lambda arrays, given: np.take(arrays[0], arrays[1], axis=given.get("axis", 0)),
    "Identity": lambda arrays, _: arrays[0],
    "Range": lambda arrays, _: _range(*(array.item() for array in arrays)).astype(arrays[0].dtype),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda arrays, given: np.squeeze(arrays[0], _axes(arrays, given)),
    "Transpose": lambda arrays, given: np.transpose(arrays[0], given.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}


def _range(start: float, limit: float, delta: float) -> Array:
    return start + delta * np.arange(max(math.ceil((limit - start) / delta), 0))
