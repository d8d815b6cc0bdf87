"""Parts of a graph: what they compute, and that they hold and ask for no more than they need."""

import numpy as np
import onnx_ir
from onnx import parser

from onnxadmm.graph.model import from_proto
from onnxadmm.graph.part import between
from onnxadmm.graph.runtime import open_session


def test_what_a_body_read_is_not_needed_behind_it() -> None:
    model = from_proto(
        parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            g (float[N, 4] x, bool c) => (float[N, 4] y) {
              t = Neg (x)
              l = If (c) <
                then_branch = a () => (float[N, 4] p) { p = Relu (t) },
                else_branch = b () => (float[N, 4] q) { q = Exp (t) }
              >
              y = Abs (l)
            }"""
        )
    )
    part = between(model, {"l": onnx_ir.DataType.FLOAT}, {"y"})
    assert [value.name for value in part.ir.graph.inputs] == ["l"]
    assert [node.op_type for node in part.ir.graph] == ["Abs"]
    with open_session(part) as session:
        found = session.run({"l": np.array([[-1, 2, -3, 4]], np.float32)})
    np.testing.assert_array_equal(found["y"], [[1, 2, 3, 4]])
    whole = between(model, {}, {"y"})
    assert [node.op_type for node in whole.ir.graph] == ["Neg", "If", "Abs"]
    assert {value.name for value in whole.ir.graph.inputs} == {"x", "c"}
