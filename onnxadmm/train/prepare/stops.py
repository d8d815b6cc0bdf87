"""Values that gradients stop at: what is computed from them counts as constant in the backward pass.

With s = stop(x), the sum f(s) + (x - s) f'(s) has the value f(x) and the gradient f'(x), whatever computes f and f';
and a mask computed from s may use operators without a gradient. In the graph a stop is an Identity of a reserved
name, so that sessions run it; the gradient builder is shown a graph input in its place (``gradient_view``).
"""

import onnx
from onnx import helper

_PREFIX = "onnxadmm.stop/"


def stop_node(source: str, output: str) -> onnx.NodeProto:
    """The node that makes ``output`` of ``source``."""
    return helper.make_node("Identity", [source], [output], name=f"{_PREFIX}{output}")


def is_stop(node: onnx.NodeProto) -> bool:
    return node.op_type == "Identity" and node.name.startswith(_PREFIX)
