"""ONNX's checker, on files with operators that onnxruntime adds to the default domain."""

import onnx
from onnx import helper


def check(model: onnx.ModelProto) -> None:
    """Check a model as strictly as onnx can; what onnx has in no version is taken for an operator of a foreign domain.

    Raises:
        onnx.checker.ValidationError: the model is not valid.
    """
    added = [node for node in model.graph.node if not node.domain and not onnx.defs.has(node.op_type)]
    if added:
        model = onnx.ModelProto.FromString(model.SerializeToString())
        for node in model.graph.node:
            if not node.domain and not onnx.defs.has(node.op_type):
                node.domain = "added"
        model.opset_import.append(helper.make_opsetid("added", 1))
    onnx.checker.check_model(model, full_check=True)
