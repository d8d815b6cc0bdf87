"""What a model costs on this machine: sizes, latency in turns, the processor's vector unit, versions installed.

Comes in: loaded models and samples. Goes out: figures with their spread.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
