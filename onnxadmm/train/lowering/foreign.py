"""Operators of other domains, written in operators of the default domain.

Exporters and optimisers write them; ONNX knows neither their shapes nor their meaning. A function returns None as
long as a shape it needs is unknown, and refuses forms that have no expansion.
"""

import math

import numpy as np
import onnx

from onnxadmm.operators.table import find
from onnxadmm.train.lowering.functions import gelu
from onnxadmm.train.lowering.norms import root_mean_square
from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, refusal
from onnxadmm.train.prepare.nodes import attribute, attributes
from onnxadmm.train.prepare.workspace import Workspace


def _operand(node: onnx.NodeProto, index: int) -> str:
    """Name of an optional input, empty when it is not there."""
    return str(node.input[index]) if index < len(node.input) else ""


@lowers("BiasGelu", domain="com.microsoft")
def expand_bias_gelu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """gelu(x + b)"""
    write = Writer(space, node)
    return write.finish(gelu(write, write.add("Add", *node.input), tanh=False))


@lowers("FastGelu", domain="com.microsoft")
def expand_fast_gelu(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """gelu of x, or of x + b, by tanh"""
    write = Writer(space, node)
    value = write.add("Add", *node.input[:2]) if _operand(node, 1) else node.input[0]
    return write.finish(gelu(write, value, tanh=True))


@lowers("BiasAdd", domain="com.microsoft")
def expand_bias_add(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """x + b + skip"""
    write = Writer(space, node)
    return write.finish(write.add("Add", write.add("Add", *node.input[:2]), node.input[2]))


@lowers("FusedConv", domain="com.microsoft")
def expand_fused_conv(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Conv, plus a fourth input, through an activation"""
    write = Writer(space, node)
    kept = {name: value for name, value in attributes(node).items() if not name.startswith("activation")}
    value = write.add("Conv", *node.input[:3], **kept)
    if _operand(node, 3):
        value = write.add("Add", value, node.input[3])
    return write.finish(_activation(write, node, value))


@lowers("FusedGemm", domain="com.microsoft")
def expand_fused_gemm(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """Gemm through an activation"""
    write = Writer(space, node)
    kept = {name: value for name, value in attributes(node).items() if not name.startswith("activation")}
    return write.finish(_activation(write, node, write.add("Gemm", *node.input, **kept)))


def _activation(write: Writer, node: onnx.NodeProto, value: str) -> str:
    name = attribute(node, "activation", "")
    numbers = [float(number) for number in attribute(node, "activation_params", [])]
    if name == "":
        return write.add("Identity", value)
    if name in ("Relu", "Sigmoid", "Tanh", "HardSwish"):
        return write.add(name, value)
    if name == "LeakyRelu":
        return write.add(name, value, alpha=numbers[0] if numbers else attribute(node, "activation_alpha", 0.01))
    if name == "HardSigmoid" and len(numbers) == 2:
        return write.add(name, value, alpha=numbers[0], beta=numbers[1])
    if name == "Clip" and len(numbers) == 2:
        return write.add(name, value, write.scalar(numbers[0]), write.scalar(numbers[1]))
    raise refusal(node, expected="a known activation", found=name, way_out="export the model without optimisation")


@lowers("FusedMatMul", domain="com.microsoft")
def expand_fused_matmul(space: Workspace, node: onnx.NodeProto) -> Nodes | None:
    """alpha A B, each transposed if asked for"""
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise refusal(
            node, expected="whole batches", found="transBatch", way_out="export the model without optimisation"
        )
    write = Writer(space, node)
    operands = []
    for index, flag in enumerate(("transA", "transB")):
        value = node.input[index]
        if attribute(node, flag, 0):
            shape = space.shape(value)
            if shape is None:
                return None
            rank = len(shape)
            value = write.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2]) if rank > 1 else value
        operands.append(value)
    product = write.add("MatMul", *operands)
    return write.finish(write.scale(product, attribute(node, "alpha", 1.0)))


@lowers("SkipLayerNormalization", domain="com.microsoft")
def expand_skip_layer_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """LayerNormalization of input + skip (+ bias), a sum that is also an output"""
    write = Writer(space, node)
    total = _skip_sum(write, node, bias=_operand(node, 4))
    operands = [total, node.input[2], *node.input[3:4]]
    result = write.add("LayerNormalization", *operands, axis=-1, epsilon=attribute(node, "epsilon", 1e-12))
    return _with_sum(space, write, node, result, total)


@lowers("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def expand_skip_rms(space: Workspace, node: onnx.NodeProto) -> Nodes | None:
    """RMSNormalization of input + skip (+ bias), a sum that is also an output"""
    shape = space.shape(node.input[0])
    if shape is None:
        return None
    write = Writer(space, node)
    total = _skip_sum(write, node, bias=_operand(node, 3))
    epsilon = attribute(node, "epsilon", 1e-12)
    result = root_mean_square(write, total, node.input[2], shape, axes=[len(shape) - 1], epsilon=epsilon)
    return _with_sum(space, write, node, result, total)


def _skip_sum(write: Writer, node: onnx.NodeProto, *, bias: str) -> str:
    total = write.add("Add", *node.input[:2])
    return write.add("Add", total, bias) if bias else total


def _with_sum(space: Workspace, write: Writer, node: onnx.NodeProto, result: str, total: str) -> Nodes:
    _refuse_outputs(space, node, 1, 2)
    write.set_output(result, node.output[0])
    if len(node.output) > 3 and node.output[3]:
        write.set_output(total, node.output[3])
    return write.nodes


def _refuse_outputs(space: Workspace, node: onnx.NodeProto, *indices: int) -> None:
    uses = space.uses()
    if any(index < len(node.output) and uses[node.output[index]] for index in indices):
        raise refusal(
            node, expected="its main output only", found="others in use", way_out="export it without optimisation"
        )


@lowers("SimplifiedLayerNormalization")
@lowers("SimplifiedLayerNormalization", domain="com.microsoft")
def expand_simplified_layer_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes | None:
    """x / sqrt(mean(x^2) + epsilon) times the scale"""
    shape = space.shape(node.input[0])
    if shape is None:
        return None
    _refuse_outputs(space, node, 1)
    write = Writer(space, node)
    axes = list(range(attribute(node, "axis", -1) % len(shape), len(shape)))
    epsilon = attribute(node, "epsilon", 1e-5)
    return write.finish(root_mean_square(write, node.input[0], node.input[1], shape, axes=axes, epsilon=epsilon))


@lowers("EmbedLayerNormalization", domain="com.microsoft")
def expand_embed_layer_normalization(space: Workspace, node: onnx.NodeProto) -> Nodes | None:
    """LayerNormalization of word + position (+ segment) embeddings"""
    shape = space.shape(node.input[0])
    if shape is None:
        return None
    write = Writer(space, node)
    total = write.add("Gather", node.input[2], node.input[0])
    if _operand(node, 8):
        positions = write.add("Gather", node.input[3], node.input[8])
    else:
        positions = write.gather(node.input[3], range(shape[1]), axis=0)
    total = write.add("Add", total, positions)
    if _operand(node, 4):
        total = write.add("Add", total, write.add("Gather", node.input[4], node.input[1]))
    epsilon = attribute(node, "epsilon", 1e-12)
    result = write.add("LayerNormalization", total, node.input[5], node.input[6], axis=-1, epsilon=epsilon)
    if len(node.output) > 1 and node.output[1]:
        if _operand(node, 7):
            raise refusal(node, expected="no mask", found="a mask", way_out="export it without optimisation")
        # What later attention reads as its mask: whole sequences.
        write.set_output(write.array(np.full(shape[0], shape[1], np.int32)), node.output[1])
    if len(node.output) > 2 and node.output[2]:
        write.set_output(total, node.output[2])
    write.set_output(result, node.output[0])
    return write.nodes


@lowers("Attention", domain="com.microsoft")
def expand_attention(space: Workspace, node: onnx.NodeProto) -> Nodes | None:
    """softmax(q k^T / sqrt(size) + mask) v, where q, k and v come from one product with the input"""
    shape, width = space.shape(node.input[0]), space.shape(node.input[1])
    if shape is None or width is None:
        return None
    if any(_operand(node, index) for index in (4, 6)) or attribute(node, "do_rotary", 0):
        raise refusal(node, expected="no past", found="one", way_out="export the model without a cache")
    write = Writer(space, node)
    batch, length, _ = shape
    sizes = attribute(node, "qkv_hidden_sizes", [width[1] // 3] * 3)
    heads = attribute(node, "num_heads", 1)
    product = write.add("MatMul", node.input[0], node.input[1])
    if _operand(node, 2):
        product = write.add("Add", product, node.input[2])
    parts = []
    for piece, size in zip(write.split(product, axis=2, sizes=list(sizes)), sizes, strict=True):
        split = write.reshape(piece, (batch, length, heads, size // heads))
        parts.append(write.add("Transpose", split, perm=[0, 2, 1, 3]))
    scale = attribute(node, "scale", 0.0) or 1.0 / math.sqrt(sizes[0] // heads)
    turned = write.add("Transpose", parts[1], perm=[0, 1, 3, 2])
    scores = write.scale(write.add("MatMul", parts[0], turned), scale)
    if _operand(node, 5):
        scores = write.add("Add", scores, node.input[5])
    if attribute(node, "unidirectional", 0):
        future = np.triu(np.full((length, length), attribute(node, "mask_filter_value", -10000.0), np.float32), 1)
        scores = write.add("Add", scores, write.array(future))
    if _operand(node, 3):
        scores = write.add("Add", scores, _attention_mask(space, write, node, batch, length))
    mixed = write.add("MatMul", write.add("Softmax", scores, axis=-1), parts[2])
    merged = write.add("Transpose", mixed, perm=[0, 2, 1, 3])
    _refuse_outputs(space, node, 1)
    return write.finish(write.reshape(merged, (batch, length, sizes[2])))


def _attention_mask(space: Workspace, write: Writer, node: onnx.NodeProto, batch: int, length: int) -> str:
    """What is added to the scores: the filter value where the mask is 0, or from each sequence's end on."""
    shape = space.shape(node.input[3])
    if shape == (batch,):
        places = write.array(np.arange(length, dtype=np.int32).reshape(1, length))
        seen = write.add("Less", places, write.add("Reshape", node.input[3], write.integers(batch, 1)))
        allowed = write.add("Cast", seen, to=onnx.TensorProto.FLOAT)
    elif shape in ((batch, length), (batch, length, length)):
        allowed = write.add("Cast", node.input[3], to=onnx.TensorProto.FLOAT)
    else:
        raise refusal(
            node, expected="a mask [N], [N, S] or [N, S, S]", found=str(shape), way_out="export without optimisation"
        )
    middle = (batch, 1, length, length) if shape == (batch, length, length) else (batch, 1, 1, length)
    away = write.add("Sub", allowed, write.scalar(1.0))
    return write.reshape(write.scale(away, -attribute(node, "mask_filter_value", -10000.0)), middle)


@lowers("Scaler", domain="ai.onnx.ml")
def expand_scaler(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """(x - offset) scale"""
    write = Writer(space, node)
    offset = write.array(np.array(attribute(node, "offset", [0.0]), np.float32))
    scale = write.array(np.array(attribute(node, "scale", [1.0]), np.float32))
    value = write.add("Cast", node.input[0], to=onnx.TensorProto.FLOAT)
    return write.finish(write.add("Mul", write.add("Sub", value, offset), scale))


def expand(space: Workspace) -> None:
    """Expand whatever can be; what stays is left to be refused by name where a gradient has to pass it."""
    if not any(_is_foreign(node) for node in space.graph.node):
        return

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        lowering = find(node.domain, node.op_type).lowering if _is_foreign(node) else None
        return None if lowering is None else lowering(space, node)

    space.infer()
    while space.replace_nodes(rewrite):
        space.infer()


def _is_foreign(node: onnx.NodeProto) -> bool:
    """Whether ONNX does not know an operator in any version."""
    return node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)
