"""The gradient graph: what either engine appends to the forward graph, and its rewriting for speed.

Comes in: a forward graph with every shape known and a loss. Goes out: one graph with losses, logits and gradients.
"""
