"""Euclidean projections on the constraint sets of the splitting; all exact, none iterative to a tolerance.

Source: Lee & Lee, "DNN compression by ADMM-based joint pruning", Knowledge-Based Systems 239, 2022, which writes
``{0,1}^m`` as the box ``[0,1]^m`` (with the budget) intersected with the sphere ``|x - 1/2|^2 = m/4``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import FloatArray
from onnxadmm.errors import OptionError

DoubleArray = NDArray[np.float64]
MaskArray = NDArray[np.bool_]


def top_k_mask(magnitude: FloatArray, kept: int) -> MaskArray:
    """Mark the ``kept`` largest entries; among equals the ones that come first in C order stay.

    Args:
        magnitude: float32, any shape, no NaN.
        kept: entries that stay, 0 .. size.

    Returns:
        bool, shape of ``magnitude``, exactly ``kept`` True.
    """
    flat = magnitude.reshape(-1)
    if not 0 <= kept <= flat.size:
        raise OptionError(
            "the number of connections to keep",
            expected=f"0 to {flat.size}",
            found=str(kept),
            way_out="ask for a share in (0, 1]",
        )
    if kept == 0:
        return np.zeros(magnitude.shape, dtype=np.bool_)
    if kept == flat.size:
        return np.ones(magnitude.shape, dtype=np.bool_)
    threshold = np.partition(flat, flat.size - kept)[flat.size - kept]
    mask: MaskArray = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    mask[ties[: kept - int(np.count_nonzero(mask))]] = True
    return np.reshape(mask, magnitude.shape)


def top_k_masks(magnitudes: Mapping[str, FloatArray], kept: int) -> dict[str, MaskArray]:
    """Mark the ``kept`` largest entries of all tensors together: one threshold over all layers (holistic Z1).

    Args:
        magnitudes: float32 arrays by name; ties are settled in the order of the mapping.
        kept: entries that stay in all tensors together.
    """
    if not magnitudes:
        return {}
    joined = np.concatenate([array.reshape(-1) for array in magnitudes.values()])
    mask = top_k_mask(joined, kept)
    masks: dict[str, MaskArray] = {}
    start = 0
    for name, array in magnitudes.items():
        masks[name] = mask[start : start + array.size].reshape(array.shape)
        start += array.size
    return masks


def project_box_budget(x: DoubleArray, *, cost: DoubleArray, budget: float) -> DoubleArray:
    """Nearest point to ``x`` in ``{0 <= z <= 1, cost.z <= budget}`` (Z2).

    The KKT conditions give ``z = clip(x - t cost, 0, 1)`` with the smallest ``t >= 0`` that meets the budget.
    ``cost.z`` falls piecewise linearly in ``t``, with breaks at ``x_j / cost_j`` and ``(x_j - 1) / cost_j``:
    a binary search over the sorted breaks finds the linear piece, and a division ``t`` on it.

    Args:
        x: float64 ``[n]``.
        cost: float64 ``[n]``, not negative.
        budget: not negative.
    """
    if budget < 0 or not np.isfinite(budget) or np.any(cost < 0):
        raise OptionError(
            "the budget of the gates",
            expected="a finite budget and costs of at least 0",
            found=f"budget {budget:g}, least cost {float(cost.min(initial=0.0)):g}",
            way_out="raise the budget",
        )

    def spent(multiplier: float) -> float:
        return float(np.dot(cost, np.clip(x - multiplier * cost, 0.0, 1.0)))

    if spent(0.0) <= budget:
        return np.clip(x, 0.0, 1.0)
    priced = cost > 0
    breaks = np.concatenate([x[priced] / cost[priced], (x[priced] - 1.0) / cost[priced]])
    breaks = np.unique(np.concatenate([[0.0], breaks[(breaks > 0) & np.isfinite(breaks)]]))
    low, high = 0, breaks.size - 1  # spent(breaks[low]) > budget >= spent(breaks[high]) = 0
    while high - low > 1:
        middle = (low + high) // 2
        if spent(float(breaks[middle])) > budget:
            low = middle
        else:
            high = middle
    spent_low, spent_high = spent(float(breaks[low])), spent(float(breaks[high]))
    fraction = (spent_low - budget) / (spent_low - spent_high)
    multiplier = float(breaks[low] + fraction * (breaks[high] - breaks[low]))
    return np.clip(x - multiplier * cost, 0.0, 1.0)


def project_sphere(x: DoubleArray) -> DoubleArray:
    """Nearest point to ``x`` on the sphere through the corners of the cube (Z3).

    ``P(x) = 1/2 + (x - 1/2) sqrt(m) / (2 |x - 1/2|)``. At the centre every point of the sphere is nearest;
    the corner of ones, which keeps everything, is taken there.

    Args:
        x: float64 ``[m]``.
    """
    offset = x - 0.5
    length = float(np.linalg.norm(offset))
    if length == 0.0:
        return np.ones_like(x)
    projected: DoubleArray = 0.5 + offset * (np.sqrt(x.size) / (2.0 * length))
    return projected
