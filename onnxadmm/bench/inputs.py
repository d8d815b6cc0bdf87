"""Deterministic random inputs that a model accepts: right shapes, right types, safe indices."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.constants import constant
from onnxadmm.graph.fed import fed_inputs, fixed_values, stated_batch
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.samples import TRIED_BY_RUNNING
from onnxadmm.graph.shapes import Shapes, infer
from onnxadmm.graph.stated import leaves_sizes_open, with_input_shapes
from onnxadmm.operators.table import find

Array = NDArray[Any]
T = TypeVar("T")

# Integers without a known meaning stay in 0..1: masks, flags, and indices into anything that is not empty.
_DEFAULT_RANGE: Final = 2
_MOST_ELEMENTS: Final = 2**29  # of an input; four gigabytes while they are drawn


def required_inputs(model: Model) -> tuple[onnx_ir.Value, ...]:
    """The inputs that must be fed: those of the graph without the initializers some files list among them."""
    initializers = model.ir.graph.initializers
    return tuple(value for value in model.ir.graph.inputs if value.name not in initializers)


def batch_is_free(model: Model) -> bool:
    """Whether axis 0 of any required input has no fixed length."""
    return any(
        value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)
        for value in required_inputs(model)
    )


def fixed_batch(model: Model) -> int:
    """The batch size that the inputs state; 1 when there is none."""
    return stated_batch({spec.name: spec.shape for spec in fed_inputs(model)}) or 1


def random_inputs(
    model: Model,
    *,
    batch: int,
    seed: int,
    inputs: Mapping[str, object] = MappingProxyType({}),
    rows: int | None = None,
) -> dict[str, Array]:
    """Draw one random array per required input; the same arguments give the same arrays.

    Floats are standard normal. Integers, and floats that are cast to indices, are uniform over the smallest table
    axis they index (through casts and changes of layout), and 0 or 1 where they index nothing. Booleans are fair coins.

    Args:
        model: any model; its weights don't matter, only inputs and what they index.
        batch: length of axis 0 where it is free, and of every other axis with the same symbolic name.
        seed: seed of the draw.
        inputs: values of some inputs by name, the same for every sample; see ``fixed_values``.
        rows: length of axis 0 of inputs that hold samples, also where the file fixes how many run together.

    Returns:
        Input name -> array in the input's own dtype.

    Raises:
        ModelFileError: an input has no known rank, or a type that cannot be drawn (strings, sequences).
        OptionError: ``batch`` is not positive, or a value does not fit its input.
    """
    if batch < 1:
        raise OptionError("--batch", expected="at least 1", found=str(batch), way_out="give a positive batch size")
    shapes = infer(model)
    required = required_inputs(model)
    fixed = fixed_values(fed_inputs(model), inputs)
    batched = {spec.name for spec in fed_inputs(model) if spec.batched}
    batch_names = {_axis_name(value, 0) for value in required} - {None}
    drawn = {}
    for position, value in enumerate(required):
        name = value.name or ""
        generator = np.random.default_rng([seed, position])
        if name in fixed and name not in batched:
            drawn[name] = fixed[name]
            continue
        shape = _shape(value, shapes, batch=batch, batch_names=batch_names)
        if rows is not None and name in batched:
            shape = (rows, *shape[1:])
        if prod(shape) > _MOST_ELEMENTS:
            raise ModelFileError(
                f"input {name}",
                expected=f"at most {_MOST_ELEMENTS:,} elements",
                found=f"shape {list(shape)}",
                way_out=f"give a smaller shape with --input-shape {name}:..., if the file leaves it free",
            )
        if name in fixed:
            drawn[name] = np.array(np.broadcast_to(fixed[name], (shape[0], *fixed[name].shape)))
            continue
        # Without axes, numpy draws a number, which onnxruntime does not take.
        drawn[name] = np.asarray(_draw(value, shape, index_range(value, shapes), generator))
    return drawn


def with_sizes_that_run(model: Model) -> Model | None:
    """Return the model with sizes stated at which it runs, where those that its shapes suggest do not.

    Some limits show in values alone: the length of a table of positions that are counted while the model runs.

    Returns:
        None where the file leaves no size free, or none that is tried runs.
    """
    if not leaves_sizes_open(model):
        return None
    with open_session(model, as_written=True) as session:
        for length in TRIED_BY_RUNNING:
            shapes = {}
            for value in required_inputs(model):
                if value.name and value.shape is not None and value.name not in model.input_shapes:
                    shapes[value.name] = tuple(dim if isinstance(dim, int) else length for dim in value.shape)
            tried = with_input_shapes(model, {name: shape for name, shape in shapes.items() if min(shape, default=1)})
            try:
                session.run(random_inputs(tried, batch=1, seed=0))
            except (ModelFileError, OptionError):
                continue
            return tried
    return None


def at_sizes_that_run(model: Model, attempt: Callable[[Model], T]) -> T:
    """Return what an attempt that runs a model gives; where it fails, at other sizes of what the file leaves free.

    Raises:
        ModelFileError: no size that is tried runs.
    """
    try:
        return attempt(model)
    except ModelFileError:
        other = with_sizes_that_run(model)
        if other is None:
            raise
        return attempt(other)


def index_range(value: onnx_ir.Value, shapes: Shapes) -> int | None:
    """How many different indices a value may hold, None when it is not used as an index.

    Follows the value through operators that pass it on. An integer that also reaches an index through arithmetic
    gets ``2``, as what the arithmetic does to it is not known here.
    """
    found: list[int] = []
    integer = value.dtype is not None and value.dtype.is_integer()
    seen = {value}
    pending = [(value, True)]
    while pending:
        current, unchanged = pending.pop()
        for node, operand in current.uses():
            size = _indexed_size(node, operand, shapes)
            if size is not None:
                found.append(size if unchanged else min(size, _DEFAULT_RANGE))
                continue
            operator = find(node.domain, node.op_type)
            passed_on = operator.moves is not None and operand < operator.data_count(len(node.inputs))
            for output in node.outputs:
                # What arithmetic makes of a float is no index of ours; what it makes of an integer may be.
                if output not in seen and (passed_on or (integer and _may_be_integer(output, shapes))):
                    seen.add(output)
                    pending.append((output, unchanged and passed_on))
    return min(found) if found else None


def _indexed_size(node: onnx_ir.Node, operand: int, shapes: Shapes) -> int | None:
    """Length of the axis that this operand indexes, None when it is no index; 1 when the length is not known."""
    lookup = next((each for each in find(node.domain, node.op_type).lookups if each.index == operand), None)
    if lookup is None:
        return None
    table = node.inputs[lookup.table]
    if lookup.along == "value":
        count = constant(table) if table is not None else None
        return max(1, int(count.reshape(-1)[0])) if count is not None else 1
    if lookup.along == "rows":
        return _axis_length(table, (0,), shapes)
    if lookup.along == "axis":
        return _axis_length(table, (node.attributes.get_int("axis", 0),), shapes)
    indices = node.inputs[operand]
    shape = shapes.shape(indices.name) if indices is not None and indices.name else None
    start = node.attributes.get_int("batch_dims", 0)
    return _axis_length(table, tuple(range(start, start + (shape[-1] if shape else 1))), shapes)


def _axis_length(table: onnx_ir.Value | None, axes: tuple[int, ...], shapes: Shapes) -> int:
    shape = shapes.shape(table.name) if table is not None and table.name else None
    if shape is None or any(not -len(shape) <= axis < len(shape) for axis in axes):
        return 1
    return max(1, min(shape[axis] for axis in axes))


def _shape(value: onnx_ir.Value, shapes: Shapes, *, batch: int, batch_names: set[str | None]) -> tuple[int, ...]:
    sample = shapes.shape(value.name or "")
    if value.shape is None or sample is None:
        raise ModelFileError(
            f"input {value.name}",
            expected="a known number of axes",
            found="an input without a shape",
            way_out="export the model with input shapes (free axes may stay symbolic)",
        )

    def lengths() -> Iterator[int]:
        assert value.shape is not None
        for axis, length in enumerate(value.shape):
            if isinstance(length, int):
                yield length
            elif axis == 0 or _axis_name(value, axis) in batch_names:
                yield batch
            else:
                yield sample[axis]

    return tuple(lengths())


def _axis_name(value: onnx_ir.Value, axis: int) -> str | None:
    if value.shape is None or axis >= len(value.shape):
        return None
    length = value.shape[axis]
    return None if isinstance(length, int) else length.value


def _may_be_integer(value: onnx_ir.Value, shapes: Shapes) -> bool:
    dtype = value.dtype or shapes.dtype(value.name or "")
    return dtype is None or dtype.is_integer()


def _draw(value: onnx_ir.Value, shape: tuple[int, ...], indices: int | None, generator: np.random.Generator) -> Array:
    dtype = value.dtype
    if dtype is onnx_ir.DataType.BOOL:
        return generator.random(shape) < 0.5
    if dtype is not None and dtype.is_integer():
        numpy_dtype = np.dtype(dtype.numpy())
        high = min(_DEFAULT_RANGE if indices is None else indices, _largest(dtype) + 1)
        return np.asarray(generator.integers(0, high, size=shape), numpy_dtype)
    if dtype is not None and dtype.is_floating_point():
        numpy_dtype = np.dtype(dtype.numpy())
        if indices is not None:
            return np.asarray(generator.integers(0, indices, size=shape), numpy_dtype)
        return np.asarray(generator.standard_normal(shape), numpy_dtype)
    raise ModelFileError(
        f"input {value.name}",
        expected="a float, integer or boolean tensor",
        found="no type" if value.type is None else str(value.type),
        way_out="give a model whose preprocessing has been cut off",
    )


def _largest(dtype: onnx_ir.DataType) -> int:
    bits = int(dtype.bitwidth)
    return int(2 ** (bits - 1) - 1) if dtype.is_signed() else int(2**bits - 1)
