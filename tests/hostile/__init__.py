"""Hostile models, data, files and moments: what must end in a result, a lock or one sentence."""
