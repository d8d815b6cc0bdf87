"""Units chosen and layers fitted from a handful of unlabelled samples: statistics, order, error curves, least squares.

Comes in: a model, its units, a ``Problem`` and batches of inputs. Goes out: which units stay, and the weights of the
layers that read them, fitted anew. It runs models in plain sessions of any onnxruntime, on any operator: what it has to
know is the matrix form of the layers whose weights it changes (``layers``). It knows nothing of labels, losses or
training: who calls it says how far a model is from the original.
"""

import onnxadmm.graph.light  # noqa: F401  # before anything imports onnx_ir
