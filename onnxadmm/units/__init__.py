"""Labels become units: groups of channels, neurons and heads that compete, what reads them, what they cost.

Comes in: what the rules said of a model. Goes out: ``Units``.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
