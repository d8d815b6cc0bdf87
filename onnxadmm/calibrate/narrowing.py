"""The best pair of lower rank for two layers whose outputs meet in a product.

q k^T = (x W_q + b_q) (z W_k + b_k)^T  says nothing of either but their inner products, so bases with the same inner
products do as well, and the best ones of r columns come from a truncated singular value decomposition in the metric of
the inputs ("CORP", 2026, compensates logits so). Offsets are rows of the weights, read by a one.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.pairs import Pair

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]

#: Singular values below this, relative to the largest, are rounding.
_ROUNDING: Final = 1e-7


def narrow(
    network: Network,
    pair: Pair,
    fits: Sequence[tuple[DoubleArray, DoubleArray]],
    moments: Sequence[Moments],
    keep: NDArray[np.bool_],
) -> dict[str, Array]:
    """Return the constants of a pair of which some units go: what stays makes the best of it.

    Args:
        fits: for each layer its matrix ``[1, width, outputs]``, and the shift of its outputs ``[1, outputs]``.
        moments: of what each of them reads.
        keep: which units stay, bool ``[units.count]``.
    """
    orders = [np.argsort(units) for units in pair.units]
    kept = keep[pair.units[0][orders[0]]]  # in the order of the units, the same of both
    wholes, seconds = [], []
    for layer, order, (matrix, shift), read in zip(pair.layers, orders, fits, moments, strict=True):
        offset = network.offset(layer) + shift
        whole = np.concatenate([matrix[0], offset])[:, order]  # [width + 1, outputs]: x 1 puts out what x W + b does
        wholes.append(whole)
        seconds.append(whole.T @ read.with_one()[0] @ whole / max(1, read.count))
    constants: dict[str, Array] = {}
    bases = best_bases(seconds[0], seconds[1], int(kept.sum()))
    for layer, order, whole, basis in zip(pair.layers, orders, wholes, bases, strict=True):
        narrowed = np.zeros_like(whole)
        narrowed[:, order[kept]] = whole @ basis
        constants |= network.with_matrix(layer, narrowed[None, :-1], narrowed[-1:] - network.offset(layer))
    return constants


def best_bases(first: DoubleArray, second: DoubleArray, rank: int) -> tuple[DoubleArray, DoubleArray]:
    """Return T_q and T_k, ``[n, rank]``, for which  (q T_q) (k T_k)^T  is as near as possible to  q k^T.

    min over T_q, T_k of  E |q k^T - (q T_q) (k T_k)^T|^2  over pairs of a q and a k, each drawn for itself. With
    E q^T q = P_q^T P_q,  E k^T k = P_k^T P_k  and  P_q P_k^T = U S V^T,  the best of so low a rank is

        T_q = P_k^T V_r S_r^(-1/2),   T_k = P_q^T U_r S_r^(-1/2).

    Args:
        first, second: sums of q^T q and of k^T k, float64 ``[n, n]``.
        rank: at most n; columns beyond the rank of the product are zero.
    """
    roots = [_root(each) for each in (first, second)]
    left, values, right = np.linalg.svd(roots[0] @ roots[1].T)
    values = values[:rank]
    there = values > _ROUNDING * values.max(initial=0.0)
    scales = np.where(there, 1.0 / np.sqrt(np.where(there, values, 1.0)), 0.0)
    return roots[1].T @ right.T[:, :rank] * scales, roots[0].T @ left[:, :rank] * scales


def _root(second: DoubleArray) -> DoubleArray:
    """Return P with  P^T P = H."""
    values, vectors = np.linalg.eigh(second)
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)
