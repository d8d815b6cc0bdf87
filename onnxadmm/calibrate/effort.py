"""How much work a calibration takes upon itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.calibrate.layers import Layer
from onnxadmm.errors import OptionError

Array = NDArray[Any]

#: Columns above which second moments are not kept, as they would take gigabytes.
WIDEST: Final = 6000
#: Fewest samples by which a loss is measured, where there are so many.
_FEWEST: Final = 16
#: Bytes of the rows that one layer is fitted to.
_ROW_BYTES: Final = 400e6
#: Looks that are always affordable, however large the network is.
_ALWAYS: Final = 4
#: Weight of the Fisher information where no others are tried.
_ONE_WEIGHT: Final = (0.5,)
#: Levels that halve what an eighth leaves. Between an eighth of a wide group and its fewest units nobody can tell how
#: its loss rises: of 500 neurons 62 lose next to nothing and one all there is, and it makes the difference where 16 do.
_HALVINGS: Final = (1 / 16, 1 / 32, 1 / 64)


@dataclass(frozen=True)
class Effort:
    """How much is looked at, and how closely.

    Attributes:
        rows: rows of each sample that a layer is looked at with: places of an image, steps of a sequence.
        levels: shares of a group at which its loss is measured, beside the fewest units that it can have, descending.
        strong: how many of them, the last ones, strong budgets alone need.
        macs: multiply-accumulates that measuring losses may take, which says how many samples are looked at.
        weights: of the Fisher information beside the curves, from 0 to 1: several are tried.
        share: of the units left in a group, which go at a time while their order is found.
        order_ridge: of the second moments by which units are ordered, relative to their mean.
        ridges: of the fits, to choose from.
        rounds: how often a fit is made again in front of an activation that cuts off.
        threads: of one operator.
        memory: bytes that statistics and activations may take.
    """

    rows: int
    levels: tuple[float, ...]
    strong: int
    macs: float
    weights: tuple[float, ...] = (0.0, 0.5, 0.75)
    share: float = 1 / 64
    order_ridge: float = 1e-2
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    rounds: int = 3
    threads: int = 1
    memory: int = 4 << 30

    @property
    def looks(self) -> int:
        """How often the loss of a group is measured."""
        return len(self.levels) + 1

    def for_network(self, macs: float, groups: int) -> "Effort":
        """Return the effort with fewer levels where the fewest samples would take more than it may.

        First those go that only strong budgets need, and all weights of the Fisher information but one; then the
        outermost of the other levels.

        Args:
            macs: multiply-accumulates of a sample.
            groups: how many are measured.
        """
        affordable = max(_ALWAYS, self.macs / (_FEWEST * max(1.0, macs) * max(1, groups)))
        if self.looks <= affordable:
            return self
        levels = self.levels[: len(self.levels) - self.strong]
        milder = replace(self, levels=levels, strong=0, weights=_ONE_WEIGHT)
        return milder if milder.looks <= affordable else replace(milder, levels=milder.levels[1:-1])

    def shown(self, macs: float, groups: int, samples: int) -> int:
        """Return how many samples a loss is measured with, of so many."""
        wanted = self.macs / (max(1.0, macs) * max(1, groups) * self.looks)
        return int(min(max(_FEWEST, wanted), samples))

    def rows_of(self, layer: Layer, data: Array, feed: Mapping[str, Array], number: int) -> NDArray[np.float32]:
        """Return rows of what goes into a layer, the same places for the same batch: ``[blocks, rows, width]``.

        Args:
            data: what goes in.
            feed: the batch that it was computed from.
            number: of the batch.
        """
        samples = max((len(array) for array in feed.values() if array.ndim), default=1)
        return layer.rows(data, self.rows * samples, np.random.default_rng([layer.index, number]))

    def fewer_rows(self, layer: Layer, width: int, samples: int) -> "Effort":
        """Return the effort for fitting a layer with so many columns in memory that is bounded."""
        most = int(_ROW_BYTES / (4 * layer.blocks * width * max(1, samples)))
        return self if self.rows <= most else replace(self, rows=max(1, most))


EFFORTS: Final[Mapping[str, Effort]] = {
    "quick": Effort(
        rows=32,
        levels=(0.75, 0.5, 0.25, 1 / 16),
        strong=1,
        macs=1e12,
        weights=_ONE_WEIGHT,
        share=1 / 16,
        ridges=(1e-2,),
        rounds=1,
    ),
    "normal": Effort(rows=64, levels=(0.875, 0.75, 0.5, 0.25, 0.125, *_HALVINGS), strong=3, macs=4e12),
    "best": Effort(
        rows=128,
        levels=(0.9375, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, *_HALVINGS),
        strong=2,
        macs=2e13,
        rounds=8,
    ),
}


def effort_of(name: str) -> Effort:
    """Return an effort by its name.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in EFFORTS:
        raise OptionError("--effort", expected=" or ".join(EFFORTS), found=repr(name), way_out="choose one of them")
    return EFFORTS[name]
