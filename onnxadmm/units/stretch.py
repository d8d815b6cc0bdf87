"""Units along an axis whose length varies with the free input dimensions."""

import numpy as np
from numpy.typing import NDArray


def stretch(units: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the unit at each position of an axis that has another length than when its units were found.

    A free length that is merged with units repeats them: all of them over and over where it stands before them, such
    as a batch before heads, or each of them where it stands behind.

    Args:
        units: the unit at each position, int64 ``[n]``, or ``[blocks, n]``, which has no other length.
        length: how many positions there are now.

    Returns:
        int64 ``[length]``; ``units`` itself where they are as many.

    Raises:
        LookupError: it cannot be told which position has which unit.
    """
    size = units.shape[-1]
    if size == length:
        return units
    if units.ndim == 1 and size:
        sizes = [number for number in range(1, size + 1) if size % number == 0]
        period = next(number for number in sizes if (units.reshape(-1, number) == units[:number]).all())
        run = next(number for number in reversed(sizes) if (units[::number] == units.reshape(-1, number).T).all())
        if run == 1 and period < size and length % period == 0:
            return np.tile(units[:period], length // period)
        if run > 1 and period == size and length % (size // run) == 0:
            return np.repeat(units[::run], length * run // size)
    raise LookupError(f"{size} positions as {length}")
