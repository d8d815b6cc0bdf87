"""What is installed, and whether it works: distributions, damaged files, a training step taken in a child.

Comes in: nothing. Goes out: a ``Diagnosis``, each finding with its way out.
"""
