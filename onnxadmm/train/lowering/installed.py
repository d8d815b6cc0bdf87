"""What the installed onnxruntime makes of a node: what trains is to be what runs, and runtimes differ in some forms."""

from collections.abc import Mapping

import numpy as np
import onnx

from onnxadmm.operators.nodes import model_of_node
from onnxadmm.runtime.session import failures
from onnxadmm.train.engine import inference_session
from onnxadmm.train.lowering.writer import refusal
from onnxadmm.train.prepare.workspace import Array, Workspace


def answer_of(space: Workspace, node: onnx.NodeProto, operands: Mapping[str, Array | None], *, way_out: str) -> Array:
    """The result of the same operator of other operands, by onnxruntime and not by ONNX's reference.

    Args:
        operands: in their order, by names of no importance; None where the node is to have none.

    Raises:
        NotTrainableError: the installed onnxruntime does not run it.
    """
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend("" if value is None else name for name, value in operands.items())
    copy.output.append("answer")
    known = {name: value for name, value in operands.items() if value is not None}
    model = model_of_node(copy, opset=space.opset, constants=known)
    model.ir_version = space.model.ir_version
    try:
        (result,) = inference_session(model, threads=1).run(None, {})
    except failures() as error:
        raise refusal(
            node,
            expected=f"a form of {node.op_type} the installed onnxruntime runs",
            found=" ".join(str(error).split())[:200],
            way_out=way_out,
        ) from error
    return np.asarray(result, np.float32)
