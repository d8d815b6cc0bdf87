"""Operators without a gradient written in operators that have one: a function each, in one table.

Comes in: a ``Workspace`` in any exporter's form. Goes out: the same graph in operators that the engine differentiates.
Weights keep their names, so gradients arrive at the user's own initializers.
"""
