"""What may be wrong with tensors, and with the types, shapes and names of values."""

import random
from typing import Any

import onnx
from onnx import TensorProto

from tests.hostile.places import (
    ABSURD_LENGTHS,
    SYMBOLS,
    TYPES,
    graphs,
    names_of,
    spoil_lengths,
    tensors_of,
    values_of,
)


def _one_tensor(draw: random.Random, model: onnx.ModelProto) -> TensorProto | None:
    tensors = tensors_of(model)
    return draw.choice(tensors) if tensors else None


def lying_dims(draw: random.Random, model: onnx.ModelProto) -> None:
    """Other lengths than there are numbers."""
    if (tensor := _one_tensor(draw, model)) is not None:
        spoil_lengths(draw, tensor.dims)


def reshaped_dims(draw: random.Random, model: onnx.ModelProto) -> None:
    """The right count of numbers in another shape: nothing around it fits."""
    if (tensor := _one_tensor(draw, model)) is None:
        return
    dims = list(tensor.dims)
    draw.shuffle(dims)
    extra = draw.choice([[], [1], [1, 1, 1]])
    tensor.dims[:] = [*extra, *dims] if draw.random() < 0.7 else [-1 if not dims else _product(dims)]


def _product(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def truncated_data(draw: random.Random, model: onnx.ModelProto) -> None:
    """Fewer bytes than the shape needs."""
    tensor = _one_tensor(draw, model)
    if tensor is not None and tensor.raw_data:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data))]


def wrong_dtype(draw: random.Random, model: onnx.ModelProto) -> None:
    """Another element type than the bytes are of."""
    if (tensor := _one_tensor(draw, model)) is not None:
        tensor.data_type = draw.choice([*TYPES, 99, -1])


def absurd_numbers(draw: random.Random, model: onnx.ModelProto) -> None:
    """The same shape, other contents: sizes and indices far out of range, or NaN."""
    tensor = _one_tensor(draw, model)
    if tensor is None:
        return
    if tensor.data_type == TensorProto.INT64:
        count = len(tensor.raw_data) // 8 or len(tensor.int64_data)
        del tensor.int64_data[:]
        tensor.raw_data = b"".join(draw.choice(ABSURD_LENGTHS).to_bytes(8, "little", signed=True) for _ in range(count))
    elif tensor.raw_data:
        tensor.raw_data = draw.choice([b"\xff", b"\x00", b"\x7f"]) * len(tensor.raw_data)


def external_tensor(draw: random.Random, model: onnx.ModelProto) -> None:
    """Data in a file that is not there, or not where a model may look."""
    if (tensor := _one_tensor(draw, model)) is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", draw.choice(["", "w.bin", "../w.bin", "/dev/zero", ".", "a\0b", "w" * 5000])),
            ("offset", draw.choice(["0", "-1", "x", "9" * 30])),
            ("length", draw.choice(["0", "-1", "x", "9" * 30])),
        ):
            tensor.external_data.add(key=key, value=value)


def lying_shape(draw: random.Random, model: onnx.ModelProto) -> None:
    """Lengths of an input or of what is in between that are absurd, or a rank that is another."""
    values = [value for value in values_of(model) if value.type.HasField("tensor_type")]
    if not values:
        return
    shape = draw.choice(values).type.tensor_type.shape
    way = draw.randrange(4)
    if way == 0 and shape.dim:
        shape.dim[draw.randrange(len(shape.dim))].dim_value = draw.choice(ABSURD_LENGTHS)
    elif way == 1 and shape.dim:
        shape.dim[draw.randrange(len(shape.dim))].dim_param = draw.choice(SYMBOLS)
    elif way == 2:
        shape.dim.add().dim_value = draw.choice(ABSURD_LENGTHS)
    elif shape.dim:
        del shape.dim[draw.randrange(len(shape.dim))]


def wrong_type(draw: random.Random, model: onnx.ModelProto) -> None:
    """A value of another element type, or none, or a sequence."""
    values = values_of(model)
    if not values:
        return
    value = draw.choice(values)
    way = draw.randrange(4)
    if way == 0:
        value.ClearField("type")
    elif way == 1:
        value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    elif way == 2:
        value.type.optional_type.elem_type.tensor_type.elem_type = TensorProto.INT64
    else:
        value.type.tensor_type.elem_type = draw.choice([*TYPES, 99])


def duplicate_name(draw: random.Random, model: onnx.ModelProto) -> None:
    """Two values, or two weights, of one name; or a value without one."""
    names = [*names_of(model), ""]
    values: list[Any] = [*values_of(model), *tensors_of(model)]
    if values:
        draw.choice(values).name = draw.choice(names)


def drop_value(draw: random.Random, model: onnx.ModelProto) -> None:
    """An input, output or weight that is read is not there."""
    graph = draw.choice(graphs(model))
    fields: list[Any] = [field for field in (graph.input, graph.output, graph.initializer) if len(field)]
    if fields:
        chosen = draw.choice(fields)
        del chosen[draw.randrange(len(chosen))]


def odd_outputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """An output that is an input, a weight, there twice, or computed nowhere."""
    names = [*names_of(model), "nowhere"]
    model.graph.output.add().name = draw.choice(names)
