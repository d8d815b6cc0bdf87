"""Consensus ADMM: copies of the weights that are trained apart, drawn together by duals; numpy alone.

Source: Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed optimization and statistical learning via the alternating
direction method of multipliers", 2011, chapter 7. With ``f_i`` the loss on the data of machine ``i``::

    minimise sum_i f_i(W_i) + I_S(Z)  subject to  W_i = Z
    W_i = argmin f_i(W) + rho/2 |W - Z + U_i|^2     Z = project(mean(W_i + U_i))     U_i = U_i + W_i - Z

Consensus and pruning share ``Z``. Each dual is the mean of them and what is left, ``U_i = U + D_i``, where ``U`` is
what the pruning of a single machine has and the ``D_i`` add up to zero. Then, with ``V`` the mean of the copies::

    Z = project(V + U)          U = U + V - Z              the z-step of the driver, as without other machines
    D_i = D_i + W_i - V                                    what each machine does by itself

    sum_i |W_i - Z + U_i|^2 = n |V - Z + U|^2 + sum_i |W_i - V + D_i|^2

Both parts of the penalty may have a ``rho`` of their own: pruning begins softly, agreement does not wait. A machine
takes its steps from ``V`` against both, ``V`` in the second as it was when the round began: a proximal term, and beside
it ``|W_i - V|^2``, which is zero where all agree. So what the method converges to is the same.

One machine has nobody to agree with: then there is no second part, and its steps are those of a training without this.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)

#: At first the penalty pulls with this share of the gradient.
_SHARE_OF_GRADIENT: Final = 0.1
#: One residual so many times the other has rho changed by a factor (Boyd et al., section 3.4.1), in so many rounds at
#: most: with a rho that settles the method converges.
_APART: Final = 10.0
_FACTOR: Final = 2.0
_ROUNDS_OF_BALANCING: Final = 50


class Copy(Generic[Number]):
    """The copy of one machine: its dual ``D``, and the penalty it pays for leaving the mean.

    Args:
        size: numbers that are agreed on.
    """

    def __init__(self, size: int, dtype: type[Number]) -> None:
        self.dual: NDArray[Number] = np.zeros(size, dtype)
        self.start: NDArray[Number] = np.zeros(size, dtype)
        self.rho = 0.0
        self._left: NDArray[Number] | None = None

    def begin(self, mean: NDArray[Number], rho: float) -> None:
        """Take the dual step, with what the last round left, and begin a round at the mean of all copies."""
        if self._left is not None:
            self.dual += self._left - mean
            if rho != self.rho and rho > 0:
                self.dual *= self.dual.dtype.type(self.rho / rho)
        self.start[...] = mean
        self.rho = rho

    def forget(self) -> None:
        """Begin without a dual, and without a round before: as a machine that has just come, and those beside it."""
        self.dual[...] = 0
        self._left = None

    def pull(self, weights: NDArray[Number], where: slice = slice(None)) -> NDArray[Number]:
        """Return the gradient of the penalty, ``rho (W - V + D)``, at some of the weights."""
        found: NDArray[Number] = weights - self.start[where]
        found += self.dual[where]
        found *= found.dtype.type(self.rho)
        return found

    def end(self, weights: NDArray[Number]) -> None:
        """Remember what the round has left."""
        self._left = weights.copy()


class Consensus(Generic[Number]):
    """What the driver knows of all copies: their mean, and how hard they are drawn to it.

    Args:
        mean: where all begin; copied.
        rho: first penalty; None: found in the first round, such that it pulls with a tenth of the gradient.
    """

    def __init__(self, mean: NDArray[Number], rho: float | None = None) -> None:
        self.mean: NDArray[Number] = mean.copy()
        self.rho = 0.0 if rho is None else rho
        self.apart = 0.0
        """``|W_i - V|`` of the last round, the root of its mean square over the copies."""
        self.moved = 0.0
        """``|V - V_before|`` of the last round."""
        self._found = rho is not None
        self._balanced = 0

    def penalty(self, machines: int) -> float:
        """The ``rho`` of a round: that of a copy against the others, of which one machine has none.

        ``W_i - V`` is ``1 - 1/n`` of how far a copy is from the mean of the others.
        """
        return self.rho * (1.0 - 1.0 / machines)

    def gather(self, copies: Sequence[NDArray[Number]], gradient: float = 0.0) -> NDArray[Number]:
        """Take the mean of the copies, in their order, and return it; let rho follow the residuals.

        Args:
            copies: of those that answered, at least one.
            gradient: norm of the gradient of a step, of one machine.
        """
        mean = copies[0].copy()
        for other in copies[1:]:
            mean += other
        if len(copies) > 1:
            mean /= mean.dtype.type(len(copies))
        self.moved = _norm(mean - self.mean)
        self.apart = float(np.sqrt(np.mean([_norm(copy - mean) ** 2 for copy in copies])))
        self.mean = mean
        if len(copies) > 1 and self.apart > 0:
            self._balance(gradient)
        return mean

    def _balance(self, gradient: float) -> None:
        if not self._found:
            self.rho = _SHARE_OF_GRADIENT * gradient / self.apart
            self._found = True
        elif self._balanced < _ROUNDS_OF_BALANCING:
            self._balanced += 1
            primal, dual = self.apart, self.rho * self.moved
            if primal > _APART * dual:
                self.rho *= _FACTOR
            elif dual > _APART * primal:
                self.rho /= _FACTOR


def _norm(array: NDArray[Number]) -> float:
    return float(np.sqrt(np.einsum("i,i->", array, array, dtype=np.float64)))
