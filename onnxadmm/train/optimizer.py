"""AdamW on one flat buffer."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.state import State, fill, number

FloatArray = NDArray[np.float32]

#: Elements per slice: the five arrays of a slice stay in the second-level cache.
_SLICE = 1 << 14


class AdamW:
    """Decoupled weight decay: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.

    ::

        m = beta1 m + (1 - beta1) g                 v = beta2 v + (1 - beta2) g^2
        w = w - lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay w)

    Args:
        size: elements of the buffers ``step`` is given, float32 ``[size]``.
    """

    def __init__(
        self,
        size: int,
        *,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.weight_decay = weight_decay
        self._betas = betas
        self._epsilon = epsilon
        self._first = np.zeros(size, np.float32)
        self._second = np.zeros(size, np.float32)
        self._steps = 0
        self._one = np.empty(_SLICE, np.float32)
        self._two = np.empty(_SLICE, np.float32)

    def state(self) -> State:
        """Both moments and the step count; live."""
        return {"first": self._first, "second": self._second, "steps": np.array(float(self._steps))}

    def load(self, state: State) -> None:
        """Go on from what ``state`` gave."""
        fill(self._first, state, "first")
        fill(self._second, state, "second")
        self._steps = int(number(state, "steps"))

    def step(self, weights: FloatArray, gradients: FloatArray, learning_rate: float) -> None:
        """Update ``weights`` in place."""
        self._steps += 1
        beta1, beta2 = self._betas
        scale = np.float32(learning_rate / (1.0 - beta1**self._steps))
        correction = np.float32(1.0 / np.sqrt(1.0 - beta2**self._steps))
        shrink = np.float32(1.0 - learning_rate * self.weight_decay)
        for start in range(0, weights.size, _SLICE):
            part = slice(start, min(start + _SLICE, weights.size))
            w, g, m, v = weights[part], gradients[part], self._first[part], self._second[part]
            one, two = self._one[: w.size], self._two[: w.size]
            np.multiply(g, np.float32(1.0 - beta1), out=one)
            m *= np.float32(beta1)
            m += one
            np.multiply(g, g, out=one)
            one *= np.float32(1.0 - beta2)
            v *= np.float32(beta2)
            v += one
            np.sqrt(v, out=one)
            one *= correction
            one += np.float32(self._epsilon)
            np.divide(m, one, out=two)
            two *= scale
            if self.weight_decay:
                w *= shrink
            w -= two
