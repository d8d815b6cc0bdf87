"""Second moments of the rows that a layer reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
FloatArray = NDArray[np.float32]

#: Rows whose products are added up in single precision before they go into the sum, which is in double precision. They
#: are about the mean of those rows: of rows far from zero single precision would leave nothing of what varies.
_CHUNK = 8192


@dataclass
class Moments:
    """Sums over rows x of a layer.

    Attributes:
        count: rows so far.
        first: sum of x, float64 ``[blocks, width]``.
        second: sum of x x^T, float64 ``[blocks, width, width]``.
    """

    count: int
    first: DoubleArray
    second: DoubleArray

    @staticmethod
    def empty(blocks: int, width: int) -> "Moments":
        """Return sums over nothing."""
        return Moments(0, np.zeros((blocks, width)), np.zeros((blocks, width, width)))

    @staticmethod
    def of(rows: FloatArray) -> "Moments":
        """Return sums over rows ``[blocks, n, width]``."""
        found = Moments.empty(rows.shape[0], rows.shape[2])
        found.add(rows)
        return found

    def add(self, rows: FloatArray) -> None:
        """Add rows ``[blocks, n, width]``."""
        self.count += rows.shape[1]
        for start in range(0, rows.shape[1], _CHUNK):
            part = rows[:, start : start + _CHUNK]
            total = part.sum(axis=1, dtype=np.float64)
            about = (total / part.shape[1]).astype(np.float32)
            part = part - about[:, None]
            # With x = c + y: the sum of x x^T is that of y y^T, and of c x^T, and of y c^T.
            centre = about.astype(np.float64)
            moved = total - part.shape[1] * centre
            self.first += total
            self.second += np.swapaxes(part, 1, 2) @ part
            self.second += centre[:, :, None] * total[:, None, :] + moved[:, :, None] * centre[:, None, :]

    @property
    def mean(self) -> DoubleArray:
        """Mean row, float64 ``[blocks, width]``."""
        return self.first / max(1, self.count)

    def with_one(self) -> DoubleArray:
        """Return the sums of x x^T for rows that end in a one: float64 ``[blocks, width + 1, width + 1]``."""
        beside = np.full((len(self.first), 1, 1), float(self.count))
        first = self.first[:, :, None]
        return np.block([[self.second, first], [np.swapaxes(first, 1, 2), beside]])

    def about_the_mean(self) -> DoubleArray:
        """Return the second moments of what differs from the mean row, float64 ``[blocks, width, width]``."""
        return self.second - self.mean[:, :, None] * self.first[:, None, :]


def cross(left: FloatArray, right: FloatArray) -> DoubleArray:
    """Return the sum over rows of ``left^T right`` for each block: float64 ``[blocks, left width, right width]``."""
    total = np.zeros((left.shape[0], left.shape[2], right.shape[2]))
    for start in range(0, left.shape[1], _CHUNK):
        total += np.swapaxes(left[:, start : start + _CHUNK], 1, 2) @ right[:, start : start + _CHUNK]
    return total
