"""Pruning of single weights: ``Z1`` keeps the largest ``|W + U1|`` per layer, or by one threshold over all layers."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.gates import position_mask
from onnxadmm.admm.problem import FloatArray, KeepArray, Problem
from onnxadmm.admm.projections import top_k_mask, top_k_masks
from onnxadmm.admm.splitting import Splitting
from onnxadmm.admm.state import State, fill, part, under
from onnxadmm.errors import OptionError

MaskArray = NDArray[np.bool_]


def remaining_entries(problem: Problem, keep: KeepArray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, MaskArray]:
    """Entries of the problem's connection weights that no removed unit takes along: bool arrays by name.

    Args:
        shapes: of the weights that are looked at.
    """
    masks = {name: np.ones(shapes[name], dtype=np.bool_) for name in problem.connections if name in shapes}
    stay = problem.with_followers(keep)
    for reader in (*problem.readers, *problem.writers):
        if reader.tensor in masks:
            masks[reader.tensor] &= position_mask(stay, reader, shapes[reader.tensor])
    return masks


def largest_of_each(
    weights: Mapping[str, FloatArray], remaining: Mapping[str, MaskArray], shares: Mapping[str, float]
) -> dict[str, MaskArray]:
    """Mark in every weight the share of its remaining entries that is largest in magnitude, at least one.

    Args:
        weights: float32 by name.
        remaining: entries that compete, same names.
        shares: in (0, 1], same names.
    """
    magnitudes = _magnitudes(weights, remaining)
    counts = {name: int(np.count_nonzero(mask)) for name, mask in remaining.items()}
    return {name: top_k_mask(array, _share_of(counts[name], shares[name])) for name, array in magnitudes.items()}


def largest_of_all(
    weights: Mapping[str, FloatArray], remaining: Mapping[str, MaskArray], share: float
) -> dict[str, MaskArray]:
    """Mark the share of the remaining entries of all weights that is largest in magnitude, at least one of each.

    Args:
        weights: float32 by name.
        remaining: entries that compete, same names.
        share: in (0, 1].
    """
    magnitudes = _magnitudes(weights, remaining)
    total = sum(int(np.count_nonzero(mask)) for mask in remaining.values())
    taking_part = [name for name, mask in remaining.items() if mask.any()]
    for name in taking_part:
        magnitudes[name].reshape(-1)[int(np.argmax(magnitudes[name]))] = np.inf  # the one that stays anyway
    return top_k_masks(magnitudes, max(_share_of(total, share), len(taking_part)))


def _magnitudes(weights: Mapping[str, FloatArray], remaining: Mapping[str, MaskArray]) -> dict[str, FloatArray]:
    # -1 lies below every magnitude, so entries out of the competition are never among the largest.
    return {name: np.where(mask, np.abs(weights[name]), np.float32(-1.0)) for name, mask in remaining.items()}


def _share_of(count: int, share: float) -> int:
    """Most entries that are no more than the share, at least one; the share is a budget, and is not rounded up."""
    # 0.29 * 100 is a little less than 29.
    return min(count, max(1, math.floor(share * count + 1e-9))) if count else 0


def _zero_unless(free: MaskArray, x: FloatArray) -> FloatArray:
    return np.where(free, x, np.float32(0.0))


class Connections:
    """ADMM state of all connection weights.

    Args:
        weights: the live weights; the arrays named in ``problem.connections`` are held.
        gradients: the live gradients, to which ``add_penalty`` adds.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        weights: Mapping[str, FloatArray],
        gradients: Mapping[str, FloatArray],
        per_layer: bool,
    ) -> None:
        missing = [name for name in problem.connections if name not in weights]
        if missing:
            raise OptionError(
                f"the connections of {missing[0]}",
                expected="a weight that is trained",
                found="no weight of that name",
                way_out="train the weight or leave its connections alone",
            )
        names = problem.thinned
        self.active = bool(names)
        self._problem = problem
        self._per_layer = per_layer
        self._weights = {name: weights[name] for name in names}
        self._gradients = {name: gradients[name] for name in names}
        self._shapes = {name: weights[name].shape for name in names}
        self._states = {name: Splitting(weights[name]) for name in names}
        self._buffers = {name: np.empty_like(weights[name]) for name in names}

    def add_penalty(self, rho: float) -> None:
        """Add ``rho (W - Z1 + U1)`` to the gradients, in place."""
        for name, state in self._states.items():
            buffer = np.subtract(self._weights[name], state.target, out=self._buffers[name])
            buffer *= np.float32(rho)
            self._gradients[name] += buffer

    def iterate(self, keep: KeepArray, *, power: float) -> tuple[float, float]:
        """Take the ``Z1`` and ``U1`` steps; return ``|W - Z1|`` and ``|Z1 - Z1_before|`` over all layers.

        Args:
            power: in [0, 1], to which the shares that stay in the end are taken for now.
        """
        if not self.active:
            return 0.0, 0.0
        remaining = remaining_entries(self._problem, keep, self._shapes)
        shifted = {name: state.shifted(self._weights[name]) for name, state in self._states.items()}
        masks = self._largest(shifted, remaining, power=power)
        primal = moved = 0.0
        for name, state in self._states.items():
            # An entry that a removed unit takes along is unconstrained: z = x + u leaves no penalty and no dual.
            free = masks[name] | ~remaining[name]
            one_primal, one_moved = state.update(self._weights[name], project=partial(_zero_unless, free))
            primal += one_primal**2
            moved += one_moved**2
        return float(np.sqrt(primal)), float(np.sqrt(moved))

    def rescale(self, factor: float) -> None:
        """Keep ``rho u`` as it is while ``rho`` becomes ``rho / factor``."""
        for state in self._states.values():
            state.rescale(factor)

    def aims(self) -> State:
        """``Z1 - U1`` of every weight, which the penalty draws it to; live."""
        return {name: state.target for name, state in self._states.items()}

    def aim(self, aims: State) -> None:
        """Let the penalty draw to what ``aims`` gave elsewhere."""
        for name, state in self._states.items():
            fill(state.target, aims, name)

    def state(self) -> State:
        """Splitting variables of every weight, live."""
        return {
            name: array for weight, one in self._states.items() for name, array in under(weight, one.state()).items()
        }

    def load(self, state: State) -> None:
        """Go on from what ``state`` gave."""
        for weight, one in self._states.items():
            one.load(part(state, weight))

    def zeros(self, keep: KeepArray) -> dict[str, MaskArray]:
        """Entries to be zero if the run ended now: bool by name, empty when connections are left alone."""
        if not self.active:
            return {}
        remaining = remaining_entries(self._problem, keep, self._shapes)
        return {name: ~mask for name, mask in self._largest(self._weights, remaining, power=1.0).items()}

    def _largest(
        self, weights: Mapping[str, FloatArray], remaining: Mapping[str, MaskArray], *, power: float
    ) -> dict[str, MaskArray]:
        problem = self._problem
        if self._per_layer:
            return largest_of_each(weights, remaining, {name: problem.share_of(name) ** power for name in remaining})
        return largest_of_all(weights, remaining, problem.connection_share**power)
