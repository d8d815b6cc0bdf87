"""What the training engine brings beside the rules: forms that it differentiates wrongly, operators of its own."""

import onnx

from onnxadmm.operators.call import shape_of
from onnxadmm.operators.table import declare
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace


def _object_to_pad(space: Workspace, node: onnx.NodeProto) -> str | None:
    mode = attribute(node, "mode", "constant")
    return None if mode == "constant" else f"mode {mode}"


def _object_to_pow(space: Workspace, node: onnx.NodeProto) -> str | None:
    return None if node.input[1] in space.constants else "an exponent that is not constant"


def _object_to_scatter(space: Workspace, node: onnx.NodeProto) -> str | None:
    reduction = attribute(node, "reduction", "none")
    return None if reduction == "none" else f"reduction {reduction}"


declare("Pad", refuses=_object_to_pad)
declare("Pow", refuses=_object_to_pow)
declare("ScatterElements", "ScatterND", refuses=_object_to_scatter)
declare("SoftmaxCrossEntropyLoss", gradient="engine")
# BatchNormalization in training mode.
declare("BatchNormInternal", domain="com.microsoft", elementwise=True, shape=shape_of(0), gradient="engine")
