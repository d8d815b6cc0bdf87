"""Before a long run: one step in a process of its own, its gradients held against finite differences.

Comes in: a model, a loss, a batch. Goes out: what was found, or one sentence that names the operator at fault.
"""
