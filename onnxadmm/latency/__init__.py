"""What milliseconds a network takes without some of its units: measured for some plans, told of all others by them.

Comes in: a model, its units, how far they may shrink. Goes out: a cost that a budget can be of.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
