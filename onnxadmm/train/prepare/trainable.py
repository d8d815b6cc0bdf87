"""Which initializers are weights: found by where they are read, not by their names."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.graph.fed import HELD
from onnxadmm.operators.table import find
from onnxadmm.train.prepare.workspace import Workspace


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
        operator = find(node.domain, node.op_type)
        names = [
            views[node.input[index]]
            for index in (*operator.weights, *operator.vectors)
            if index < len(node.input) and node.input[index] in views
        ]
        if operator.scales:
            names = _scale(space, node, views=views, layered=layered, direct=direct)
        found.update({name: node.op_type for name in names if space.constants[name].size})
        layer = bool(names) and not operator.scales
        foreign = node.domain not in ("", "ai.onnx")  # perhaps a layer
        if layer or foreign or any(name in layered for name in node.input):
            layered.update(node.output)
        if layer and operator.is_layer:
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
    """Names of a model's own constants: initializers and outputs of Constant nodes, without those for inputs."""
    made = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    names = made | {tensor.name for tensor in model.graph.initializer}
    return frozenset(name for name in names if not name.startswith(HELD))


def _is_bfloat(space: Workspace, name: str) -> bool:
    return "bfloat16" in str(space.constants[name].dtype)


def _views(space: Workspace) -> dict[str, str]:
    """Every value that is a constant or a rearranged constant, with the constant's name."""
    views = {name: name for name in space.constants}
    for node in space.graph.node:
        moved = node.domain in ("", "ai.onnx") and find("", node.op_type).moves in ("view", "order", "repeat")
        if moved and node.input[0] in views:
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
