"""What each part of the work costs, from what some plans took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.latency.work import Work

DoubleArray = NDArray[np.float64]
KeepArray = NDArray[np.bool_]

#: Strengths to choose from of what holds the terms to a common price.
_RIDGES: Final = 10.0 ** np.arange(-5.0, 2.1, 0.5)


@dataclass(frozen=True)
class Prices:
    """What the whole network's time is made of; all together it comes to about 1.

    Attributes:
        fixed: what no unit changes.
        terms: what the terms of the work cost, for each step that lengths are rounded up to: float64
            ``[steps, terms]``, none negative.
    """

    fixed: float
    terms: DoubleArray

    def of(self, rows: DoubleArray) -> DoubleArray:
        """Return what plans take, relative to the whole network, given their rows ``[plans, steps, terms]``."""
        found: DoubleArray = self.fixed + (rows * self.terms).sum(axis=(1, 2))
        return found


def rows_of(work: Work, keeps: Sequence[KeepArray], *, steps: Sequence[int]) -> DoubleArray:
    """Return what is left of each term in some plans, as a share of it: float64 ``[plans, steps, terms]``.

    Terms that do not count with a step are 0 there.
    """
    whole = np.ones(work.unit_count, np.bool_)
    rows = np.zeros((len(keeps), len(steps), len(work.terms)))
    for place, step in enumerate(steps):
        products, counted = work.products(step=step), work.counted(step)
        dense = products.values(products.lengths(whole))
        for number, keep in enumerate(keeps):
            rows[number, place] = counted * products.values(products.lengths(keep)) / dense
    return rows


def fit(work: Work, rows: DoubleArray, ratios: DoubleArray) -> Prices:
    """Fit prices to what some plans took.

    First one price for all multiply-accumulates and one for all numbers that are written, for every step, one for all
    branches that may go, and a fixed part: by least squares of the relative errors, none negative. Then every term may
    differ from that in proportion to it, by ridge regression, its strength chosen by leaving one plan out at a time
    (Hoerl and Kennard, 1970; Allen's PRESS, 1974). With the plans that a measurement has time for the terms of a deep
    network are not determined: what is not known stays at the common price.

    Args:
        rows: of the plans, float64 ``[plans, steps, terms]``.
        ratios: milliseconds of each plan over those of the whole network, float64 ``[plans]``.
    """
    kinds = work.shares()  # [kinds, terms]
    weights = 1.0 / ratios
    common = np.einsum("pst,kt->psk", rows, kinds).reshape(len(rows), -1)
    found = _not_negative(_with_fixed(common) * weights[:, None])
    start = np.append(np.einsum("sk,kt->st", found[:-1].reshape(-1, len(kinds)), kinds).reshape(-1), found[-1])
    prices = _near(_with_fixed(rows.reshape(len(rows), -1)) * weights[:, None], start)
    return Prices(float(prices[-1]), prices[:-1].reshape(rows.shape[1:]))


def _with_fixed(columns: DoubleArray) -> DoubleArray:
    return np.column_stack([columns, np.ones(len(columns))])


def _not_negative(columns: DoubleArray) -> DoubleArray:
    """Solve ``columns @ x = 1`` by least squares with no x negative; what would be is left out."""
    active = np.arange(columns.shape[1])
    found = np.zeros(columns.shape[1])
    while active.size:
        found[:] = 0.0
        found[active] = np.linalg.lstsq(columns[:, active], np.ones(len(columns)), rcond=None)[0]
        negative = active[found[active] < 0]
        if not negative.size:
            break
        # One at a time: without the worst another may turn out to be right.
        active = active[active != negative[np.argmin(found[negative])]]
    return np.maximum(found, 0.0)


def _near(columns: DoubleArray, start: DoubleArray) -> DoubleArray:
    """Solve ``columns @ x = 1`` near ``start``, no x negative, in units of it."""
    scaled, missing = columns * start, 1.0 - columns @ start
    kernel = scaled @ scaled.T
    best, chosen = np.inf, np.zeros(len(missing))
    for ridge in _RIDGES:
        inverse = np.linalg.inv(kernel + ridge * np.eye(len(missing)))
        coefficients = inverse @ missing
        left_out = float(np.square(coefficients / np.diagonal(inverse)).sum())
        if left_out < best:
            best, chosen = left_out, coefficients
    return np.maximum(start * (1.0 + scaled.T @ chosen), 0.0)
