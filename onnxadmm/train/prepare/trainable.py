"""Which initializers are weights: found by where they are read, not by their names."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.train.prepare.workspace import Workspace

#: Inputs of layers that hold weights, by index.
WEIGHT_INPUTS = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Einsum": (0, 1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "GRU": (1, 2, 3),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
#: Element-wise operators whose constant is a weight when the other side comes from a layer.
SCALES = frozenset({"Add", "Sub", "Mul", "Div"})
#: Operators that only rearrange a weight on its way to a layer.
VIEWS = frozenset({"Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def find_trainable(space: Workspace, *, chosen: Sequence[str] | None) -> frozenset[str]:
    """Names of the initializers to train.

    A constant of an element-wise operator counts when the other side has passed a layer, so that the
    standardisation of an image inside the graph stays as it is; a single number counts only as a bias right
    after a layer, so that the constants of activations stay.

    Args:
        chosen: names the user wants trained; all that qualify when None.

    Raises:
        OptionError: a chosen name is no weight of the model.
        NotTrainableError: weights are float16, bfloat16 or float64.
    """
    views = _views(space)
    found: dict[str, str] = {}
    layered: set[str] = set()  # values that a layer has been through
    direct: set[str] = set()  # values a layer puts out itself
    for node in space.graph.node:
        if node.domain not in ("", "ai.onnx"):
            layered.update(node.output)
            continue
        names = [
            views[node.input[index]]
            for index in WEIGHT_INPUTS.get(node.op_type, ())
            if index < len(node.input) and node.input[index] in views
        ]
        if node.op_type in SCALES:
            names = _scale(space, node, views=views, layered=layered, direct=direct)
        found.update({name: node.op_type for name in names if space.constants[name].size})
        layer = bool(names) and node.op_type in WEIGHT_INPUTS
        if layer or any(name in layered for name in node.input):
            layered.update(node.output)
        if layer and node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            direct.update(node.output)
    floats = {name for name in found if space.constants[name].dtype.kind == "f" or _is_bfloat(space, name)}
    if chosen is not None:
        unknown = [name for name in chosen if name not in floats]
        if unknown:
            raise OptionError(
                "trainable weights",
                expected=f"names among the {len(floats)} weights of the model's layers",
                found=", ".join(unknown),
                way_out="use the names of initializers that Conv, Gemm, MatMul or a normalisation reads",
            )
        floats = set(chosen)
    for name in sorted(floats):
        if space.constants[name].dtype != np.float32:
            raise NotTrainableError(
                f"weight {name}",
                expected="float32",
                found=str(space.constants[name].dtype),
                way_out="convert the model to float32 first",
            )
    return frozenset(floats)


def constant_names(model: onnx.ModelProto) -> frozenset[str]:
    """Names of a model's own constants: initializers and outputs of Constant nodes."""
    made = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    return frozenset(made | {tensor.name for tensor in model.graph.initializer})


def _is_bfloat(space: Workspace, name: str) -> bool:
    return "bfloat16" in str(space.constants[name].dtype)


def _views(space: Workspace) -> dict[str, str]:
    """Every value that is a constant or a rearranged constant, with the constant's name."""
    views = {name: name for name in space.constants}
    for node in space.graph.node:
        if node.op_type in VIEWS and not node.domain and node.input[0] in views:
            views[node.output[0]] = views[node.input[0]]
    return views


def _scale(
    space: Workspace, node: onnx.NodeProto, *, views: dict[str, str], layered: set[str], direct: set[str]
) -> list[str]:
    """The constant operand of an element-wise node, if it is a weight."""
    constants = [name for name in node.input if name in views]
    others = [name for name in node.input if name not in views]
    if len(constants) != 1 or len(others) != 1:
        return []
    single = space.constants[views[constants[0]]].size == 1
    bias = node.op_type == "Add" and others[0] in direct
    return [views[constants[0]]] if others[0] in layered and (bias or not single) else []
