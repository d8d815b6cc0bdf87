"""Shapes of every tensor, with free input dimensions replaced by samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model, to_proto

Array = NDArray[Any]


@dataclass(frozen=True)
class Shapes:
    """What is known about the tensors of a model without running it."""

    _shapes: Mapping[str, tuple[int, ...]]
    _dynamic: Mapping[str, tuple[bool, ...]]
    _values: Mapping[str, Array]
    _dtypes: Mapping[str, onnx_ir.DataType]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape at the first sample of the free input dimensions."""
        return self._shapes.get(name)

    def dynamic(self, name: str) -> tuple[bool, ...] | None:
        """For each axis, whether its length varies with the free input dimensions."""
        return self._dynamic.get(name)

    def value(self, name: str) -> Array | None:
        """Value of a small tensor that does not depend on free input dimensions."""
        return self._values.get(name)

    def partial(self, name: str) -> tuple[int | None, ...] | None:
        """Elements of a 1-D integer tensor, None where one depends on a free input dimension."""
        value = self._values.get(name)
        return None if value is None or value.ndim != 1 else tuple(int(element) for element in value)

    def dtype(self, name: str) -> onnx_ir.DataType | None:
        """Element type."""
        return self._dtypes.get(name)


def infer(model: Model) -> Shapes:
    """Infer shapes at two samples of the free input dimensions."""
    first, dtypes = _sample(model, (2, 64))
    second, _ = _sample(model, (3, 96))
    shapes = {name: shape for name, shape in first.items() if len(second.get(name, ())) == len(shape)}
    dynamic = {name: tuple(a != b for a, b in zip(shape, second[name], strict=True)) for name, shape in shapes.items()}
    values: dict[str, Array] = {}
    candidates = list(model.ir.graph.initializers.values())
    candidates += [value for node in model.ir.graph for value in node.outputs]
    for value in candidates:
        array = constant(value)
        if array is not None and array.size <= 4096:
            values[value.name or ""] = array
    return Shapes(shapes, dynamic, values, dtypes)


def _sample(
    model: Model, sizes: tuple[int, int]
) -> tuple[dict[str, tuple[int, ...]], dict[str, onnx_ir.DataType]]:
    proto = to_proto(model)
    del proto.graph.value_info[:]
    for item in proto.graph.input:
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_value = sizes[min(axis, 1)]
    for item in proto.graph.output:
        item.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, onnx_ir.DataType] = {}
    for item in [*inferred.input, *inferred.value_info, *inferred.output]:
        tensor = item.type.tensor_type
        dtypes[item.name] = onnx_ir.DataType(tensor.elem_type)
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[item.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for initializer in inferred.initializer:
        shapes[initializer.name] = tuple(initializer.dims)
        dtypes[initializer.name] = onnx_ir.DataType(initializer.data_type)
    return shapes, dtypes
