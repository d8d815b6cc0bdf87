"""Which units go: budgets, ranking without training, and ``plan.json``, the only thing that passes to the rewriter.

Comes in: groups of units and their costs. Goes out: a ``Plan`` for a model of one sha256.
"""
