"""Models as graphs: loading, checking, saving, simplifying, shapes and values, constants, sessions that run them.

Comes in: a path or a protobuf. Goes out: a ``Model`` (onnx_ir underneath) with what is known of it.
Does not know: units, plans, training.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
