"""The inputs that a model must be fed: which of them hold samples, and values that stay the same for all samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import OptionError
from onnxadmm.graph.constants import new_initializer, value_names
from onnxadmm.graph.model import Model, clone

Array = NDArray[Any]
Shape = tuple[int | None, ...]

#: What the name of a constant begins with that stands for an input; it is no weight.
HELD = "onnxadmm.held/"


@dataclass(frozen=True)
class FedInput:
    """An input of the model: its shape, None for open dimensions, with the batch on axis 0 where it has one."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    batched: bool = True


def batched_names(shapes: Mapping[str, Shape | None]) -> frozenset[str]:
    """Names of the inputs with a batch on axis 0.

    Beside an input of open batch size, one whose first dimension is literal has no batch (a mask, a table). Where all
    are literal the batch is that of the input with the most axes, and a single number beside others is no batch of 1.

    Args:
        shapes: of all inputs, None for open dimensions or for a shape as a whole.
    """
    if any(_first_is_open(shape) for shape in shapes.values()):
        return frozenset(name for name, shape in shapes.items() if _first_is_open(shape))
    length, most = stated_batch(shapes), max((len(shape or ()) for shape in shapes.values()), default=0)
    return frozenset(
        name
        for name, shape in shapes.items()
        if shape and shape[0] == length and not (length == 1 and len(shape) == 1 < most)
    )


def stated_batch(shapes: Mapping[str, Shape | None]) -> int | None:
    """The batch size that the shapes of all inputs state; None where it is open, or there is none."""
    if any(_first_is_open(shape) for shape in shapes.values()):
        return None
    largest = max((shape or () for shape in shapes.values()), key=len, default=())
    return largest[0] if largest else None


def fed_inputs(model: Model) -> tuple[FedInput, ...]:
    """The inputs that must be fed and are tensors of numbers; initializers that old files list are none."""
    values = [value for value in model.ir.graph.inputs if value.name not in model.ir.graph.initializers]
    shapes = {value.name or "": _shape(value) for value in values}
    batched = batched_names(shapes)
    return tuple(
        FedInput(name, shapes[name] or (), np.dtype(value.dtype.numpy()), name in batched)
        for value in values
        if (name := value.name or "") and value.dtype is not None and value.dtype != onnx_ir.DataType.STRING
    )


def fixed_values(specs: Sequence[FedInput], given: Mapping[str, object]) -> dict[str, Array]:
    """Values of inputs in their dtype and shape, without the batch where they have one.

    A single number stands for all elements; numbers in a row are laid out as the input is.

    Args:
        specs: the inputs of the model.
        given: values by name, array-like.

    Raises:
        OptionError: a name is no input, or a value does not fit it.
    """
    known = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    for name, value in given.items():
        if name not in known:
            raise OptionError(
                "--input",
                expected=f"an input of the model: {', '.join(known)}",
                found=repr(name),
                way_out="write NAME=VALUE with one of these names",
            )
        spec = known[name]
        array = _as_array(value)
        if array is None:
            raise OptionError(
                "--input",
                expected=f"numbers for {name}",
                found=repr(value),
                way_out="write e.g. NAME=1 or NAME=640,640",
            )
        laid_out = _laid_out(array, spec.shape[1:] if spec.batched else spec.shape, name)
        with np.errstate(all="ignore"):
            converted = laid_out.astype(spec.dtype)
        if spec.dtype.kind != "f" and not np.array_equal(converted.astype(array.dtype), laid_out):
            raise OptionError(
                "--input",
                expected=f"values of type {spec.dtype} for {name}",
                found=str(array.reshape(-1)[:8].tolist()),
                way_out="give values that the input can hold",
            )
        found[name] = converted
    return found


def hold_inputs(model: Model, values: Mapping[str, Array]) -> Model:
    """Return a copy of the model in which constants stand for some inputs, the model itself where there are none.

    Args:
        values: by name of the input, in its dtype and shape.
    """
    if not values:
        return model
    result = clone(model)
    graph = result.ir.graph
    taken = value_names(result)
    for value in [value for value in graph.inputs if value.name in values]:
        name = value.name or ""
        held = new_initializer(result, f"{HELD}{name}", values[name], taken=taken)
        node = onnx_ir.Node("", "Identity", inputs=[held], name=f"{HELD}{name}")
        output = node.outputs[0]
        output.shape, output.type = value.shape, value.type
        graph.inputs.remove(value)
        value.replace_all_uses_with(output)
        output.name = name
        first = next(iter(graph), None)
        if first is None:
            graph.append(node)
        else:
            graph.insert_before(first, node)
    return result


def _as_array(value: object) -> Array | None:
    """An array of numbers, None where it is something else."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None


def _laid_out(array: Array, want: Shape, name: str) -> Array:
    if len(array.shape) == len(want) and all(w is None or s == w for s, w in zip(array.shape, want, strict=True)):
        return array
    free = sum(size is None for size in want)
    fixed = int(np.prod([size for size in want if size is not None], dtype=np.int64))
    if array.size == 1 and not free:
        return np.full([size for size in want if size is not None], array.reshape(()))
    if (free == 0 and array.size == fixed) or (free == 1 and fixed and array.size % fixed == 0):
        return array.reshape([-1 if size is None else size for size in want])
    shown = str(["?" if size is None else size for size in want]).replace("'", "")
    raise OptionError(
        "--input",
        expected=f"one number for {name}, or as many as its shape {shown} has",
        found=f"{array.size} of shape {list(array.shape)}",
        way_out="separate them by commas, row by row",
    )


def _shape(value: onnx_ir.Value) -> Shape | None:
    return None if value.shape is None else tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def _first_is_open(shape: Shape | None) -> bool:
    return shape is None or (len(shape) > 0 and shape[0] is None)
