"""Which models native code is known to survive; all others are run in a process of their own.

onnxruntime checks the shapes of what most kernels are given and refuses them with a message. A few divide by an
attribute or by data, or write where an index points, without looking. So a model is harmless if every node of it is of
an operator listed here, with attributes in the range that its kernel takes for granted.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import onnx_ir

from onnxadmm.graph.constants import FLOATS, constant
from onnxadmm.graph.model import Model

#: Operators whose kernels check all that they are given, whatever the attributes.
_CHECKING: Final = frozenset(
    (
        "Abs", "Add", "And", "Atan", "BatchNormalization", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat",
        "Constant", "Cos", "Dropout", "Elu", "Equal", "Erf", "Exp", "Flatten", "Floor", "Gather", "Gelu", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
        "InstanceNormalization", "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
        "LogSoftmax", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "PRelu", "Reciprocal", "ReduceMax",
        "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Slice",
        "Softmax", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze",
        "Where",
    )
)  # fmt: skip
#: Operators that ONNX knows for floats alone, and others whose result is of the type of all their operands.
_OF_FLOATS_ONLY: Final = frozenset(("Conv", "Erf", "Exp", "Log", "Sigmoid", "Softmax", "Sqrt", "Tanh"))
_OF_ONE_TYPE: Final = frozenset((*_OF_FLOATS_ONLY, "Abs", "Add", "Div", "MatMul", "Mul", "Sub"))
#: Windows and what they leave out; more would only ask for memory.
_LONGEST: Final = 2**16


def is_harmless(model: Model) -> bool:
    """Tell whether no kernel of onnxruntime can crash on a model, whatever it is fed."""
    return not model.ir.functions and all(_is_harmless(node) for node in model.ir.graph.all_nodes())


def doubtful_nodes(model: Model) -> Iterator[onnx_ir.Node]:
    """Yield the nodes of the main graph that are not known to be harmless."""
    return (node for node in model.ir.graph if not _is_harmless(node))


def _is_harmless(node: onnx_ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    try:
        return node.op_type in _CHECKING or _CHECKS.get(node.op_type, _never)(node)
    except (TypeError, ValueError, AttributeError):  # an attribute of another type than the operator's
        return False


def _never(node: onnx_ir.Node) -> bool:
    return False


def _convolution(node: onnx_ir.Node) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    array = None if weight is None else constant(weight)
    if array is None or array.size == 0 or array.ndim < 3:
        return False
    groups = node.attributes.get_int("group", 1)
    divided = groups >= 1 and array.shape[0] % groups == 0
    return divided and _has_rank(node, array.ndim) and _window(node)


def _has_rank(node: onnx_ir.Node, rank: int) -> bool:
    """Whether what is convolved has the axes of the kernel: shapes are inferred from the kernel's without a look."""
    kernel: Sequence[int] | None = node.attributes.get_ints("kernel_shape")
    if kernel is not None:
        return len(kernel) == rank - 2
    data = node.inputs[0]
    return data is not None and data.shape is not None and len(data.shape) == rank


def _window(node: onnx_ir.Node) -> bool:
    """Whether lengths are positive and what is left out or put around is not negative."""
    return all(
        _within(node, name, least)
        for name, least in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 0), ("output_padding", 0))
    )


def _within(node: onnx_ir.Node, name: str, least: int) -> bool:
    numbers: Sequence[int] | None = node.attributes.get_ints(name)
    return numbers is None or all(least <= number <= _LONGEST for number in numbers)


def _division(node: onnx_ir.Node) -> bool:
    """Whether it is one of floats, or of whole numbers by a constant other than 0 and -1."""
    divisor = constant(node.inputs[1]) if node.inputs[1] is not None else None
    if divisor is not None and divisor.dtype.kind in "iu":
        return not ((divisor == 0) | (divisor == -1)).any()
    return _of_floats(node)


def _of_floats(node: onnx_ir.Node, depth: int = 8) -> bool:
    """Whether an operator whose operands are of one type has floats; False where the file does not show it."""
    if node.op_type in _OF_FLOATS_ONLY:
        return True
    values = [value for value in node.inputs if value is not None]
    if any(value.dtype in FLOATS for value in values):
        return True
    writers = [value.producer() for value in values]
    return depth > 0 and any(
        writer is not None and writer.op_type in _OF_ONE_TYPE and _of_floats(writer, depth - 1) for writer in writers
    )


_CHECKS: Final[dict[str, Callable[[onnx_ir.Node], bool]]] = {
    "AveragePool": _window,
    "Conv": _convolution,
    "ConvTranspose": lambda node: "output_shape" not in node.attributes and _convolution(node),
    "Div": _division,
    "MaxPool": _window,
    "ReduceL2": _of_floats,
    "ReduceMean": _of_floats,
    "Split": lambda node: node.attributes.get_int("num_outputs", len(node.outputs)) == len(node.outputs),
}
