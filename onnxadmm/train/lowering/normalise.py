"""Bringing a copy of any exported graph into the one form that lowering expects."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from onnxadmm.errors import DataError, NotTrainableError
from onnxadmm.graph.constants import constant_of_node
from onnxadmm.operators.table import find
from onnxadmm.train.lowering.foreign import expand
from onnxadmm.train.prepare.batch import batched_inputs, fed_values
from onnxadmm.train.prepare.nodes import attribute, set_attribute
from onnxadmm.train.prepare.workspace import Workspace


def stamp_shapes(
    model: onnx.ModelProto, *, batch_size: int, input_shapes: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """Fix every dimension of the inputs: the batch to ``batch_size``, others to the sample's shape.

    Inputs without a batch keep their shape, see ``batched_inputs``.

    Args:
        model: changed in place and returned.
        input_shapes: shape of one sample per input name, without the batch.

    Raises:
        DataError: a sample's shape contradicts the model's.
        NotTrainableError: a dimension is open and no sample shape was given.
    """
    inputs, batched = fed_values(model.graph), batched_inputs(model.graph)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in model.graph.input:
        if value.name not in batched:
            continue
        tensor = value.type.tensor_type
        declared = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        sample = input_shapes.get(value.name)
        if sample is None:
            sample = tuple(0 if size is None else size for size in declared[1:])
        fits = len(sample) == len(declared) - 1 or not tensor.HasField("shape")
        if not fits or any(want not in (None, have) for want, have in zip(declared[1:], sample, strict=False)):
            raise DataError(
                f"input {value.name}",
                expected=f"samples of shape {['?' if s is None else s for s in declared[1:]]}",
                found=str(list(sample)),
                way_out="give data of the model's shape",
            )
        if 0 in sample:
            raise NotTrainableError(
                f"input {value.name}",
                expected="known dimensions besides the batch",
                found=str(["?" if s is None else s for s in declared]),
                way_out="give the shape of one sample",
            )
        value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.elem_type, [batch_size, *sample]))
    outputs = [(value.name, value.type.tensor_type.elem_type) for value in model.graph.output]
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in outputs)
    return model


def normalise(space: Workspace, *, names: Callable[[], frozenset[str]], batch_size: int, exported: int | None) -> None:
    """Lift constants, drop Identity and Dropout, fold what is known, make padding explicit.

    Args:
        names: finds what will be trained, called once constants are lifted; folding spares these.
        exported: batch size the model was exported for, None when it is open.
    """
    _lift_constants(space)
    _drop_transparent(space)
    expand(space)
    space.protected = names()
    space.infer()
    _rebatch_reshapes(space, batch_size, exported)
    space.fold()
    _rebatch_reshapes(space, batch_size, exported)  # whose targets were computed
    space.fold()
    _explicit_pads(space)
    space.drop_dead()
    space.infer()


def _lift_constants(space: Workspace) -> None:
    def rewrite(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        array = constant_of_node(node)
        if array is None:
            return None
        space.constants[node.output[0]] = array
        return []

    space.replace_nodes(rewrite)


def _drop_transparent(space: Workspace) -> None:
    """Let readers of Identity, and of Dropout and of Cast to the same type, read what stands before it."""
    outputs = {value.name for value in space.graph.output}
    renamed: dict[str, str] = {}

    def rewrite(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Identity", "Dropout"):
            return None
        if node.op_type == "Dropout" and len(node.output) > 1 and node.output[1]:
            return None
        source = renamed.get(node.input[0], node.input[0])
        if node.output[0] in outputs:
            return [helper.make_node("Identity", [source], [node.output[0]], name=node.name)]
        renamed[node.output[0]] = source
        return []

    space.replace_nodes(rewrite)
    space.rename_uses(renamed)


def _rebatch_reshapes(space: Workspace, batch_size: int, exported: int | None) -> None:
    """Give literal batch sizes in Reshape targets (a model exported with a fixed batch) the training batch size.

    The batch is taken to be the slowest part of the first axis, alone or with what is merged into it.
    """
    for node in space.graph.node:
        target = space.constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        source = space.shape(node.input[0]) if target is not None else None
        if target is None or not source or target.size == 0 or target[0] <= 0 or (target == 0).any():
            continue
        elements, rest = int(np.prod(source)), int(np.prod(target[1:]))
        if source[0] % batch_size or (rest > 0 and target[0] * rest == elements):
            continue
        if rest > 0:  # all literal: the first axis is as large as the elements make it
            first, fits = elements // rest, elements % rest == 0
        else:
            first, fits = batch_size, target[0] == exported and elements % (batch_size * -rest) == 0
        if not fits or first == target[0] or (rest < 0 and source[0] != batch_size):
            continue
        fixed = target.copy()
        fixed[0] = first
        node.input[1] = space.constant(f"{node.input[1]}/batch", fixed)
        space.infer()


def _explicit_pads(space: Workspace) -> None:
    """Replace auto_pad by numbers: the engine's gradients are wrong with it."""
    for node in space.graph.node:
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode == "NOTSET" or node.domain not in ("", "ai.onnx"):
            continue
        shape = space.shape(node.input[0])
        kernel = attribute(node, "kernel_shape", None)
        if kernel is None and len(node.input) > 1 and (weight := space.shape(node.input[1])) is not None:
            kernel = list(weight[2:])
        # What a transposed window pads is decided by the size of its result.
        padded = find("", node.op_type).windowed and node.op_type != "ConvTranspose"
        if shape is None or kernel is None or not padded:
            continue
        rank = len(kernel)
        strides = attribute(node, "strides", [1] * rank)
        dilations = attribute(node, "dilations", [1] * rank)
        before, after = [], []
        for size, k, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            if mode == "VALID":
                total = 0
            small, large = total // 2, total - total // 2
            before.append(large if mode == "SAME_LOWER" else small)
            after.append(small if mode == "SAME_LOWER" else large)
        set_attribute(node, "auto_pad", None)
        set_attribute(node, "pads", before + after)
