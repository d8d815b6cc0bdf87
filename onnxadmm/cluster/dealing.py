"""Who has which samples: by their contents, so that machines that come and go move as few as can be."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MIXER: Final = np.uint64(0xD6E8FEB86659FD93)


def dealt(keys: NDArray[np.uint64], machines: Sequence[int]) -> NDArray[np.int64]:
    """Return which of the machines has each sample: of all it is the one for which the two together hash highest.

    So a machine that leaves gives its samples to all others alike, and no sample moves between these; one that comes
    back has its own again (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).

    Args:
        keys: a number for each sample, uint64 ``[N]``; equal ones are together.
        machines: numbers of those that are there.

    Returns:
        Number of the machine of each sample, int64 ``[N]``.
    """
    heights = np.stack([_mixed(keys ^ _mixed(np.array([machine + 1], np.uint64))) for machine in machines])
    numbers = np.array(machines, np.int64)
    found: NDArray[np.int64] = numbers[np.argmax(heights, axis=0)]
    return found


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = numbers * _MIXER  # wraps around
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIXER
    return mixed ^ (mixed >> np.uint64(29))
