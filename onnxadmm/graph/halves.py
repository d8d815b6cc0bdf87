"""Weights stored as float16, half of the bytes, and read as float32.

A Cast stands behind each of them. Inputs, outputs and every operator stay float32; onnxruntime computes such a Cast
once, when it loads the model, which then runs as before, at the speed and with the memory of before.
"""

from typing import Final

import numpy as np
import onnx_ir

from onnxadmm.graph.constants import constant, constants_by_name, new_initializer, value_names
from onnxadmm.graph.model import Model, clone

_LARGEST: Final = float(np.finfo(np.float16).max)
#: Bytes that the node and the other name take, beside twice the name.
_OVERHEAD: Final = 64


def with_halved_weights(model: Model) -> tuple[Model, tuple[str, ...]]:
    """Store float32 weights of the main graph as float16, each where that takes less room.

    What is an input or an output of the graph as well, or was stored sparsely, stays as it is.

    Returns:
        A copy, and the names of the weights that kept float32, as a value of theirs is beyond 65,504 or no number.
    """
    result = clone(model)
    graph = result.ir.graph
    taken = value_names(result)
    public = {id(value) for value in (*graph.inputs, *graph.outputs)}
    kept: list[str] = []
    for name, value in constants_by_name(result).items():
        array = constant(value)
        if (
            array is None
            or array.dtype != np.float32
            or id(value) in public
            or name in model.extras.sparse_names
            or not value.uses()
            or 2 * array.size <= _OVERHEAD + 2 * len(name.encode())
        ):
            continue
        if not (np.abs(array) <= _LARGEST).all():
            kept.append(name)
            continue
        half = new_initializer(result, f"{name}_half", array.astype(np.float16), taken=taken)
        cast = onnx_ir.Node("", "Cast", [half], [onnx_ir.AttrInt64("to", onnx_ir.DataType.FLOAT)])
        (whole,) = cast.outputs
        whole.shape, whole.type = value.shape, onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        value.replace_all_uses_with(whole)
        before, node = half.producer(), value.producer()
        if before is None:
            graph.insert_before(graph[0], cast)
        else:
            graph.insert_after(before, cast)
        if node is None:
            del graph.initializers[name]
        else:
            graph.remove(node, safe=True)
        whole.name = name
    return result, tuple(kept)
