"""What this processor makes of quantised networks: whether onnxruntime's sums of byte products are cut off on it.

Without VNNI, x86-64 processors add pairs of products of unsigned and signed bytes in 16 bits (see
``onnxadmm.graph.exact_integers``). Not every system tells what its processor can do, so onnxruntime is asked.
"""

from typing import Final

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.graph.constants import constants_by_name
from onnxadmm.graph.exact_integers import is_quantised
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.runtime import open_session

# The smallest product whose only pair leaves 16 bits, repeated over a whole vector register.
_LENGTH: Final = 64
_LARGEST: Final = (255, 127)


def byte_products_are_exact() -> bool:
    """Multiply a row of the largest bytes by a column of such with onnxruntime, as a user would.

    Raises:
        InputError: the module onnxruntime is missing or broken.
        ModelFileError: it does not run the product.
    """
    row, column = np.full((1, _LENGTH), _LARGEST[0], np.uint8), np.full((_LENGTH, 16), _LARGEST[1], np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "byte_product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, row.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
        [numpy_helper.from_array(column, "w")],
    )
    proto: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with open_session(from_proto(proto)) as session:
        return bool((session.run({"x": row})["y"] == _LENGTH * _LARGEST[0] * _LARGEST[1]).all())


def multiplies_signed_bytes(model: Model) -> bool:
    """Tell whether onnxruntime multiplies activations by weights of signed bytes when it runs a model.

    It also does where a model only rounds to bytes and computes with floats between (QuantizeLinear and
    DequantizeLinear around each layer): it writes the layers anew when it loads them.
    """
    return is_quantised(model) and any(
        value.dtype == onnx_ir.DataType.INT8 and len(value.shape or ()) > 1
        for value in constants_by_name(model).values()
    )
