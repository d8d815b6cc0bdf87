"""What a vector has moved, in half precision: what is sent again and again takes two bytes a number and not four.

Both sides know where the vector was, ``R``. Sent is the way to where it is, ``V``, times a power of two by which its
largest number is near the end of float16; below 2^-39 of that number nothing arrives. Rounding is not forgotten: what
is left over is added to what is sent next (Seide et al., "1-bit stochastic gradient descent", 2014)::

    h_k = half(V_k + E_{k-1} - R_{k-1})     R_k = R_{k-1} + h_k     E_k = V_k + E_{k-1} - R_k = sum_j (V_j - R_j)

So all that was ever meant and all that arrived differ by one rounding, and a vector that comes to rest is known exactly
in the end. The duals of ``consensus`` need the former: they add up ``W_i - R``, ``W_i`` being what a machine has told
of its copy, and over all machines that is no longer zero but ``n E``, which goes to zero where the steps do. Without
what is left over it would be the sum of all roundings, and the method would end beside the optimum. Where the duals are
scaled, since ``rho`` has changed, so is ``E``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)

#: The largest number sent is below two to this: one more, and rounding could lead out of float16.
_TOP: Final = 15
#: Numbers that are halved at a time, so that all that is made of them stays in the cache.
_BLOCK: Final = 1 << 14
#: Two to this and to its negative are normal float32 numbers.
_LOWEST: Final = -126


@dataclass(frozen=True)
class Halves:
    """How far a vector has moved: ``numbers 2^power``.

    Attributes:
        numbers: float16, as many as the vector has.
        power: what was divided by.
    """

    numbers: NDArray[np.float16]
    power: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return self.numbers.nbytes

    def added_to(self, known: NDArray[Number]) -> NDArray[Number]:
        """Return where the vector is, which was known before; the same bits on every machine."""
        moved: NDArray[Number] = self.numbers.astype(known.dtype)
        moved *= known.dtype.type(2.0**self.power)
        moved += known
        return moved


class Rounding(Generic[Number]):
    """What halving a vector that is sent again and again has left over.

    Args:
        size: numbers of the vector.

    Attributes:
        left: what was meant so far and has not arrived.
    """

    def __init__(self, size: int, dtype: type[Number]) -> None:
        self.left: NDArray[Number] = np.zeros(size, dtype)

    def scale(self, factor: float) -> None:
        """Scale what is left over; by nothing, where all begins anew."""
        self.left *= self.left.dtype.type(factor)

    def halved(self, vector: NDArray[Number], known: NDArray[Number]) -> Halves:
        """Return what takes a receiver to a vector, and keep what rounding leaves over.

        Args:
            known: what the receiver has.
        """
        places = [slice(first, first + _BLOCK) for first in range(0, len(vector), _BLOCK)]
        numbers = np.empty(len(vector), np.float16)
        with np.errstate(over="ignore", invalid="ignore"):  # of what is not finite; whoever trains says so
            power = _power_for([float(np.abs(self._wanted(vector, known, place)).max()) for place in places])
            for place in places:
                numbers[place] = self._wanted(vector, known, place) * vector.dtype.type(2.0**-power)
                # From what the receiver has now: its sum is rounded as well.
                self.left[place] += vector[place] - Halves(numbers[place], power).added_to(known[place])
        return Halves(numbers, power)

    def _wanted(self, vector: NDArray[Number], known: NDArray[Number], place: slice) -> NDArray[Number]:
        wanted: NDArray[Number] = vector[place] - known[place]
        wanted += self.left[place]
        return wanted


def _power_for(largest: Sequence[float]) -> int:
    """The power of two by which numbers as large fill float16; what is not finite arrives as it is."""
    if not all(map(math.isfinite, largest)):
        return 0
    return max(math.frexp(max(largest, default=0.0))[1] - _TOP, _LOWEST)
