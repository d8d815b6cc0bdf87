"""One splitting variable of ADMM in scaled form: ``z = project(x + u)``, then ``u = u + x - z``.

The penalty is ``rho/2 |x - z + u|^2`` (squared). Residuals as in Boyd et al., "Distributed Optimization and
Statistical Learning via ADMM", 2011, section 3.3: primal ``|x - z|``, dual ``rho |z - z_before|``.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.state import State, fill

Number = TypeVar("Number", np.float32, np.float64)


class Splitting(Generic[Number]):
    """State ``z`` and scaled dual ``u`` of one constraint on one array, with all buffers allocated once.

    Args:
        x: first value; ``z`` starts there and ``u`` at zero.
    """

    def __init__(self, x: NDArray[Number]) -> None:
        self.z: NDArray[Number] = x.copy()
        self.u: NDArray[Number] = np.zeros_like(x)
        self.target: NDArray[Number] = x.copy()
        """``z - u``: the penalty's gradient at ``x`` is ``rho (x - target)``."""
        self._sum: NDArray[Number] = np.empty_like(x)

    def shifted(self, x: NDArray[Number]) -> NDArray[Number]:
        """``x + u`` in a buffer that the next call overwrites."""
        return np.add(x, self.u, out=self._sum)

    def update(
        self, x: NDArray[Number], *, project: Callable[[NDArray[Number]], NDArray[Number]]
    ) -> tuple[float, float]:
        """Take the ``z`` and ``u`` steps; return ``|x - z|`` and ``|z - z_before|`` (the dual residual over rho)."""
        new = project(self.shifted(x))
        moved = norm(new - self.z)
        self.z[...] = new
        np.subtract(x, self.z, out=self._sum)
        primal = norm(self._sum)
        self.u += self._sum
        np.subtract(self.z, self.u, out=self.target)
        return primal, moved

    def state(self) -> dict[str, NDArray[Number]]:
        """``z`` and ``u``, live."""
        return {"z": self.z, "u": self.u}

    def load(self, state: State) -> None:
        """Go on from what ``state`` gave."""
        fill(self.z, state, "z")
        fill(self.u, state, "u")
        np.subtract(self.z, self.u, out=self.target)

    def rescale(self, factor: float) -> None:
        """Keep ``rho u`` as it is while ``rho`` becomes ``rho / factor``."""
        self.u *= self.u.dtype.type(factor)
        np.subtract(self.z, self.u, out=self.target)


def norm(array: NDArray[Number]) -> float:
    """Euclidean norm, summed in float64 in memory order."""
    flat = array.reshape(-1)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, dtype=np.float64)))
