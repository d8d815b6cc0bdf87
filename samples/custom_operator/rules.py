"""What onnxadmm has to know of Scale2: how units pass it, and what it is in operators of ONNX while training."""

import onnx

import onnxadmm as oa
from onnxadmm.rules.visit import Visit
from onnxadmm.train.lowering.writer import Writer


def in_onnx(write: Writer, node: onnx.NodeProto) -> str:
    """2 x: for training, whose engine then knows the gradient."""
    return write.add("Mul", node.input[0], write.scalar(2.0))


@oa.rule("Scale2", domain="com.example", elementwise=True, keeps_zero=True, lowering=in_onnx, note="doubles")
def scale2(visit: Visit) -> None:
    """Every position passes by itself: what is removed in front of the operator is gone behind it."""
    visit.set_result(visit.operand(0).axes)
