"""The gradient graph: what the engine's builder appends to the forward graph, and its rewriting for speed.

Comes in: a forward graph with every shape known and a loss. Goes out: one graph with losses, logits and gradients.
"""
