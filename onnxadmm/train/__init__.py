"""Training on any onnxruntime: artifacts, steps, evaluation, retraining.

Its folders: ``data`` (samples to batches), ``prepare`` (a training copy of the model), ``lowering`` (operators without
a gradient written in those that have one), ``gradients`` (the gradient of each operator), ``backward`` (the gradient
graph), ``workers`` (a batch shared among processes), ``preflight`` (one step in a child, gradients checked). ``engine``
says who differentiates, and is the one door to the training wheel.
Does not know: units, plans, rewriting.
"""
