"""A run of ``compress``: its steps in order, its trainings, its journal, checkpoints and measurements.

Comes in: a model, data, budgets and a recipe. Goes out: the result in its folder and a report.
"""
