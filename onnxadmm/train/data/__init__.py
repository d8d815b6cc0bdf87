"""Samples on their way to a training step: read, fitted to the model, transformed, batched, made ahead.

Comes in: a path, arrays or an iterable, and a model's signature. Goes out: an ``ArrayDataset`` of ``Batch``.
"""
