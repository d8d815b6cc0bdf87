"""How large a model is: bytes on disk, parameters, parameters that are not zero, nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir

from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model

# Operands that steer an operator and are nobody's weights, where their type alone does not tell.
_SETTINGS: Final[dict[str, frozenset[int]]] = {
    "Clip": frozenset((1, 2)),
    "ConvInteger": frozenset((2, 3)),
    "DequantizeLinear": frozenset((1, 2)),
    "Dropout": frozenset((1,)),
    "MatMulInteger": frozenset((2, 3)),
    "NonMaxSuppression": frozenset((2, 3, 4)),
    "OneHot": frozenset((1, 2)),
    "Pad": frozenset((1, 2)),
    "Pow": frozenset((1,)),
    "QLinearConv": frozenset((1, 2, 4, 5, 6, 7)),
    "QLinearMatMul": frozenset((1, 2, 4, 5, 6, 7)),
    "QuantizeLinear": frozenset((1, 2)),
    "Range": frozenset((0, 1, 2)),
    "Resize": frozenset((1, 2, 3)),
    "Upsample": frozenset((1,)),
}
# Where integers wider than 8 bits are quantised weights or biases, not shapes.
_WIDE_QUANTISED: Final = frozenset((("DequantizeLinear", 0), ("QLinearConv", 8)))


@dataclass(frozen=True)
class Sizes:
    """How large a model is.

    Attributes:
        file_bytes: bytes of the ``.onnx`` file and of its external data.
        parameters: elements of the weights, see ``weights``.
        nonzero_parameters: those that are not zero.
        nodes: nodes of the graph and its subgraphs, without ``Constant`` nodes.
    """

    file_bytes: int
    parameters: int
    nonzero_parameters: int
    nodes: int


def measure_sizes(model: Model) -> Sizes:
    """Count what a model holds; ``file_bytes`` is the size of the file it was loaded from."""
    parameters = nonzero = 0
    for value in weights(model):
        array = constant(value)
        if array is not None:
            parameters += array.size
            nonzero += int(np.count_nonzero(array))
    nodes = sum(node.op_type != "Constant" for graph in model.ir.graphs() for node in graph)
    return Sizes(model.file_bytes, parameters, nonzero, nodes)


def weights(model: Model) -> Iterator[onnx_ir.Value]:
    """Yield every constant that is a weight, once each: initializers and outputs of ``Constant`` nodes.

    A weight is a constant of at least one axis that a node reads, holding floats, integers of at most 8 bits, or
    wider integers where quantised operators take weights and biases. Shapes, indices and single numbers (axis count 0)
    are not weights, nor are operands that steer an operator: the bounds of Clip, the scales of Resize, the grid of
    QuantizeLinear. The statistics of BatchNormalization are stored floats and count.
    """
    for graph in model.ir.graphs():
        for value in graph.initializers.values():
            if _is_weight(value):
                yield value
        for node in graph:
            if node.op_type == "Constant" and _is_weight(node.outputs[0]):
                yield node.outputs[0]


def _is_weight(value: onnx_ir.Value) -> bool:
    array = constant(value)
    if array is None or array.ndim == 0:
        return False
    uses = [(node.op_type, operand) for node, operand in value.uses()]
    uses = [(operator, operand) for operator, operand in uses if operand not in _SETTINGS.get(operator, ())]
    dtype = onnx_ir.DataType.from_numpy(array.dtype) if array.dtype != np.object_ else onnx_ir.DataType.STRING
    if dtype.is_floating_point() or (dtype.is_integer() and dtype.bitwidth <= 8):
        return bool(uses)
    return dtype.is_integer() and any(use in _WIDE_QUANTISED for use in uses)
