"""The optimisation, numpy only: what is minimised, its splittings and projections, the loop that solves it.

Comes in: a problem (groups of gates, budgets, costs) and a ``Trainer`` that knows weights, gradients and steps.
Goes out: which gates are open, which connections stay, and the history of the iterations.
Does not know: ONNX, onnxruntime, files.
"""
