"""Operators that work position by position: activations, arithmetic with broadcasting, casts."""

from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit


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
    visit.set_result(visit.operand(0).axes)


@rule("Dropout", note="the identity; its mask passes as well")
def dropout(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.set_result(operand.axes)
    visit.set_result(operand.axes, index=1)


@rule(
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Or", "Pow", "Sub", "Sum", "Where", "Xor",
    note="ties the axes that meet; broadcast axes say nothing",
)  # fmt: skip
@rule("Mul", keeps_zero=True, note="ties the axes that meet; broadcast axes say nothing")
def arithmetic(visit: Visit) -> None:
    visit.set_result(visit.tie_broadcast(visit.operands(), visit.result_shape()))


@rule("PRelu", note="ties the channels to the slopes")
def prelu(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.set_result(visit.tie_broadcast([operand, visit.operand(1)], operand.shape))
