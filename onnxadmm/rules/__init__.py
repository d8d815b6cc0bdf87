"""What is known of every operator: one rule each, in one table.

A rule says which positions of operands and results live and die together and which must stay, what the operator costs,
and how to adapt the node when positions are gone. Comes in: one node with its labels. Goes out: facts.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
