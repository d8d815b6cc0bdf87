"""The gradient of each operator, written in operators of ONNX; one file per family, beside its lowerings.

Comes in: a node of the lowered graph and the names of its results' gradients. Goes out: nodes that compute those of its
operands. They know no engine: any onnxruntime runs them.
"""
