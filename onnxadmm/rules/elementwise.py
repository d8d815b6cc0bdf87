"""Operators that work position by position: activations, arithmetic with broadcasting, casts."""

from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import Visit

_ALONE = "works position by position"
_MEETS = "ties the axes that meet; broadcast axes say nothing"


@rule(
    "Abs", "Cos", "Erf", "Exp", "LeakyRelu", "Log", "Reciprocal", "Relu", "Sigmoid", "Sin", "Sqrt", "Tanh",
    elementwise=True, gradient="engine", note=_ALONE,
)  # fmt: skip
@rule(
    "Ceil", "Floor", "IsInf", "IsNaN", "Not", "Round", "Sign",
    elementwise=True, gradient="zero", note=_ALONE,
)  # fmt: skip
@rule(
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Cosh", "Elu", "Gelu", "HardSigmoid", "HardSwish",
    "Mish", "Selu", "Shrink", "Sinh", "Softplus", "Softsign", "Swish", "Tan", "ThresholdedRelu",
    elementwise=True, note=_ALONE,
)  # fmt: skip
@rule("Cast", "Neg", elementwise=True, moves="order", keeps_zero=True, gradient="engine", note=_ALONE)
@rule("Identity", elementwise=True, moves="view", keeps_zero=True, gradient="engine", note=_ALONE)
@rule(
    "Clip", elementwise=True, indices=(1, 2), gradient="engine",
    note="works position by position; its limits are scalars",
)  # fmt: skip
def unary(visit: Visit) -> None:
    visit.set_result(visit.operand(0).axes)


@rule("Dropout", moves="view", pure=False, draws=True, note="the identity; its mask passes as well")
def dropout(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.set_result(operand.axes)
    visit.set_unsized_result(operand.axes, index=1)  # below opset 10 nobody infers the shape of the mask


@rule("Add", "Div", "Sub", elementwise=True, scales=True, gradient="engine", note=_MEETS)
@rule("Mul", elementwise=True, scales=True, keeps_zero=True, gradient="engine", note=_MEETS)
@rule("Max", "Min", "Pow", elementwise=True, gradient="engine", note=_MEETS)
@rule("Where", elementwise=True, indices=(0,), gradient="engine", note=_MEETS)
@rule("Mean", "Mod", "Sum", elementwise=True, note=_MEETS)
@rule(
    "And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor",
    elementwise=True, gradient="zero", note=_MEETS,
)  # fmt: skip
def arithmetic(visit: Visit) -> None:
    visit.mark_steps_by_hand()
    visit.set_result(visit.tie_broadcast(visit.operands(), visit.result_shape()))


@rule("PRelu", elementwise=True, vectors=(1,), note="ties the channels to the slopes")
def prelu(visit: Visit) -> None:
    operand = visit.operand(0)
    visit.set_result(visit.tie_broadcast([operand, visit.operand(1)], operand.shape))
