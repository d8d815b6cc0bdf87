"""How much of a model could go at all."""

import numpy as np

from onnxadmm.graph.model import Model
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units, find_units

_NOTICEABLE = 0.02  # of the parameters that could go


def removable_parameters(units: Units) -> float:
    """Return how many parameters go when of every block of units only one stays."""
    cost = Cost(units, "params")
    keep = np.zeros(units.count, np.bool_)
    for group in units.groups:
        keep[[members[0] for members in group.members]] = True
    return cost.dense() - cost.total(keep)


def frees_less(model: Model, original: Model, *, inexact: bool = False) -> bool:
    """Tell whether noticeably fewer parameters of a model could go than of what it was made from.

    Simplifying mostly frees units, where it folds what an exporter left to the graph. It locks some where it folds two
    sizes into one, or a constant into several.
    """
    before = removable_parameters(find_units(original, inexact=inexact))
    after = removable_parameters(find_units(model, inexact=inexact))
    return after < before * (1 - _NOTICEABLE)
