"""One training step shared among processes: parts of a batch, shared memory, one byte of order per step.

Comes in: artifacts and a batch. Goes out: the loss and gradients of the whole batch, as one process would compute them.
"""
