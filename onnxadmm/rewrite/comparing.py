"""How far two results of a model are apart: signal-to-noise for floats, equality for everything else."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Largest absolute value that counts as noise where the reference is zero everywhere and a ratio means nothing.
_ZERO_NOISE: Final = 1e-6


@dataclass(frozen=True)
class Gap:
    """How far two results are apart.

    Attributes:
        snr_db: 10 log10(sum ref^2 / sum (ref - new)^2) over all float elements, in dB; inf where they are identical,
            -inf where ``problem`` is given. Where the reference is zero everywhere, against one per element instead.
        max_abs_error: largest absolute difference of a float element.
        exact_mismatch: share of the integer, boolean and text elements that differ.
        problem: why the two cannot agree at all (shapes, types, NaN), or None.
    """

    snr_db: float
    max_abs_error: float
    exact_mismatch: float
    problem: str | None

    def complaint(self, *, limit: float, exact_may_differ: float) -> str | None:
        """Say what is wrong, or None where the results agree.

        Args:
            limit: smallest signal-to-noise ratio in dB that passes.
            exact_may_differ: share of the exactly compared elements that may differ.
        """
        if self.problem is not None:
            return self.problem
        if self.exact_mismatch > exact_may_differ:
            return f"{self.exact_mismatch:.3%} of the elements that must be equal differ"
        if self.snr_db < limit:
            return f"{self.snr_db:.1f} dB, max abs error {self.max_abs_error:.3g}"
        return None


def compare(reference: Any, other: Any) -> Gap:
    """Compare two results: arrays of equal shape and dtype, or sequences and maps of such."""
    left, right = dict(_leaves(reference, "")), dict(_leaves(other, ""))
    if left.keys() != right.keys():
        odd = min(left.keys() ^ right.keys())
        return _apart(f"element {odd} is on one side only")
    for label, array in left.items():
        where = f" of {label}" if label else ""
        if array.shape != right[label].shape:
            return _apart(f"shape{where} should be {list(array.shape)} and is {list(right[label].shape)}")
        if array.dtype.kind != right[label].dtype.kind or array.dtype.itemsize != right[label].dtype.itemsize:
            return _apart(f"type{where} should be {array.dtype} and is {right[label].dtype}")
    floats = [label for label, array in left.items() if _is_float(array)]
    exact = [label for label in left if label not in floats]
    differing = sum(int((left[label] != right[label]).sum()) for label in exact)
    mismatch = differing / max(sum(left[label].size for label in exact), 1)
    if not floats:
        return Gap(math.inf, 0.0, mismatch, None)
    return _float_gap(_stacked(left, floats), _stacked(right, floats), mismatch)


def _float_gap(reference: NDArray[np.float64], other: NDArray[np.float64], mismatch: float) -> Gap:
    same = (reference == other) | (np.isnan(reference) & np.isnan(other))
    finite = np.isfinite(reference) & np.isfinite(other)
    wrong = np.flatnonzero(~same & ~finite)
    if wrong.size:
        first = int(wrong[0])
        return _apart(
            f"NaN or infinity at {wrong.size} positions of one side only, first at flat position {first}: "
            f"{reference[first]} should be and {other[first]} is there"
        )
    error = reference[finite] - other[finite]
    noise, largest = float(error @ error), float(np.abs(error).max(initial=0.0))
    if largest == 0.0:
        return Gap(math.inf, 0.0, mismatch, None)
    signal = float(reference[finite] @ reference[finite])
    if signal == 0.0:
        problem = None if largest <= _ZERO_NOISE else f"all should be zero and {largest:.3g} is there"
        return Gap(_decibels(error.size, noise), largest, mismatch, problem)
    return Gap(_decibels(signal, noise), largest, mismatch, None)


def _decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two positive powers; a noise that underflows to zero is no noise."""
    return math.inf if noise == 0.0 else 10.0 * (math.log10(signal) - math.log10(noise))


def _apart(problem: str) -> Gap:
    return Gap(-math.inf, math.inf, 0.0, problem)


def _is_float(array: Array) -> bool:
    return array.dtype.kind in "fc" or array.dtype.name == "bfloat16"


def _leaves(value: Any, label: str) -> Iterator[tuple[str, Array]]:
    """Take sequences and maps apart: a label and an array for every leaf."""
    if isinstance(value, Mapping):
        for key in value:
            yield from _leaves(value[key], f"{label}[{key!r}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{label}[{index}]")
    else:
        yield label, np.asarray(value)


def _stacked(parts: Mapping[str, Array], labels: Sequence[str]) -> NDArray[np.float64]:
    flat = [parts[label].reshape(-1) for label in labels]
    return np.concatenate(
        [(array.view(array.real.dtype) if array.dtype.kind == "c" else array).astype(np.float64) for array in flat]
    )
