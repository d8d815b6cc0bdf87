"""The graph without the removed units, and the proof: mask, shrink, verify, compare tensor by tensor.

Comes in: a model and a plan. Goes out: the masked original, the smaller model, a ``Verification``.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
