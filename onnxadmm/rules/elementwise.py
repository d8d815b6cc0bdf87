"""Operators that work position by position: activations, arithmetic with broadcasting, casts."""

from collections.abc import Sequence

from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit


def broadcast(visit: Visit, operands: Sequence[Operand], shape: Sequence[int]) -> list[Axis]:
    """Tie operands that are broadcast to ``shape`` and return the axes of the result.

    Axes of size one repeat and say nothing; an axis that stays locks the axes it meets.
    """
    result: list[Axis] = []
    for position, size in enumerate(shape):
        met: list[Axis] = []
        for operand in operands:
            index = position - (len(shape) - operand.rank)
            if index >= 0 and operand.shape[index] == size and size > 1:
                met.append(operand.axes[index])
        axis = met[0] if met else None
        for other in met[1:]:
            if axis is not None or other is not None:
                axis = visit.tie(axis, other, "joins it with positions that stay")
        result.append(axis)
    return result


@rule(
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Not", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tan", "Tanh", "ThresholdedRelu",
    note="works position by position",
)  # fmt: skip
@rule("Cast", "Identity", "Neg", keeps_zero=True, note="works position by position")
@rule("Clip", note="works position by position; its limits are scalars")
def unary(visit: Visit) -> None:
    visit.give(visit.operand(0).axes)


@rule("Dropout", note="the identity; its mask passes as well")
def dropout(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.give(operand.axes)
    visit.give(operand.axes, result=1)


@rule(
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Or", "Pow", "Sub", "Sum", "Where", "Xor",
    note="ties the axes that meet; broadcast axes say nothing",
)  # fmt: skip
@rule("Mul", keeps_zero=True, note="ties the axes that meet; broadcast axes say nothing")
def arithmetic(visit: Visit) -> None:
    visit.give(broadcast(visit, visit.operands(), visit.result_shape()))


@rule("PRelu", note="ties the channels to the slopes")
def prelu(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.give(broadcast(visit, [operand, visit.operand(1)], operand.shape))
