"""The training copy of a model: its tail cut off, its operator set raised, what trains found, what cannot refused.

Comes in: a model as given. Goes out: a ``Workspace``, and what is known of its logits, weights and gradients' paths.
"""
