"""Networks in bytes: static quantisation by onnxruntime, and which operators keep floats, as bytes would cost too much.

Comes in: a model, batches of its inputs, and a measure of what is lost. Goes out: a model whose layers round to eight
bits and back (QuantizeLinear and DequantizeLinear), which onnxruntime computes with integers. The rounding itself is
the library's (``onnxruntime.quantization``); what is ours is the search for what must not be rounded.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
