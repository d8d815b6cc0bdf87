"""What the solver is given: gates on units, a cost of keeping them, and something that trains.

Nothing here knows ONNX. A *unit* is a number in ``range(unit_count)``; a *gate* ``v[j]`` is one
float per unit, multiplied into every reader of the unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
UnitArray = NDArray[np.int64]
KeepArray = NDArray[np.bool_]

BatchType = TypeVar("BatchType", contravariant=True)


class Trainer(Protocol[BatchType]):
    """A network in training whose weights and gradients are live numpy views.

    ``weights`` and ``gradients`` have the same keys; arrays are float32, C-contiguous, writable,
    and the very memory the engine reads and writes.
    """

    @property
    def weights(self) -> Mapping[str, FloatArray]: ...

    @property
    def gradients(self) -> Mapping[str, FloatArray]: ...

    def backward(self, batch: BatchType) -> float:
        """Run forward and backward at the current weights, overwrite ``gradients``, return the mean loss."""
        ...

    def update(self, learning_rate: float) -> None:
        """Take one AdamW step on ``weights`` from what ``gradients`` holds now."""
        ...


@dataclass(frozen=True)
class Reader:
    """Weight slices that consume units.

    Attributes:
        tensor: name of the weight.
        axis: axis of ``tensor`` whose positions belong to units.
        units: unit at each position of that axis, -1 where the position is not gated; int64 ``[n]``,
            or ``[blocks, n]`` when the unit also depends on the block of axis 0 (grouped convolution:
            axis 0 is cut into ``blocks`` equal runs, and row ``b`` holds for run ``b``).
    """

    tensor: str
    axis: int
    units: UnitArray

    @property
    def block_count(self) -> int:
        """Number of equal runs of axis 0; 1 where the units do not depend on it."""
        return self.units.shape[0] if self.units.ndim == 2 else 1


@dataclass(frozen=True)
class UnitRange:
    """Units ``start .. start + count - 1``, which come from one producing axis and compete.

    Attributes:
        blocks: block number of each unit, int64 ``[count]``; every block must keep equally many.
            None when the units are free.
    """

    name: str
    start: int
    count: int
    blocks: UnitArray | None

    @property
    def places(self) -> slice:
        """Where the units stand in an array with a place for every unit."""
        return slice(self.start, self.start + self.count)

    @property
    def numbers(self) -> UnitArray:
        """The units, int64 ``[count]``."""
        return np.arange(self.start, self.start + self.count, dtype=np.int64)

    @property
    def block_count(self) -> int:
        """Number of blocks; 1 when the units are free."""
        return 1 if self.blocks is None else int(self.blocks.max()) + 1

    @property
    def block_numbers(self) -> UnitArray:
        """Block number of each unit, int64 ``[count]``; all zero when the units are free."""
        return np.zeros(self.count, dtype=np.int64) if self.blocks is None else self.blocks

    @property
    def members(self) -> list[UnitArray]:
        """The units of each block in ascending order, numbered as in the whole problem: int64 ``[members]`` each."""
        numbers = self.block_numbers
        return [self.start + np.flatnonzero(numbers == block) for block in range(self.block_count)]


@dataclass(frozen=True)
class GateGroup(UnitRange):
    """Units that compete, with the limits of what may go.

    Attributes:
        keep_at_least: fewest units that must stay, per block when ``blocks`` is given; 0 where all may go.
        keep_at_most_removed: most units that may go.
        multiple: kept counts of at least this many are multiples of it, unless the whole group stays.
    """

    keep_at_least: int
    keep_at_most_removed: int
    multiple: int


class CostModel(Protocol):
    """What a set of kept units costs, in the unit of the budget (MACs, parameters, bytes, milliseconds)."""

    def total(self, keep: NDArray[np.bool_]) -> float:
        """Exact cost when the units where ``keep`` is True stay."""
        ...

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Cost each unit adds, the others being as in ``keep``: float64 ``[unit_count]``."""
        ...


class MeasuredCost(CostModel, Protocol):
    """A cost that can be measured, and is told of what has not been measured from what has."""

    def measure(self, keep: NDArray[np.bool_]) -> float:
        """Measure what the units of ``keep`` cost."""
        ...

    def correct(self, factor: float) -> None:
        """From now on tell ``factor`` times as much of every set of units."""
        ...


def _alone(keep: KeepArray) -> KeepArray:
    """Nothing follows the units that stay."""
    return keep


@dataclass(frozen=True)
class Problem:
    """Which units there are, who reads them, what they cost and what the result may cost.

    Attributes:
        budget: most that ``cost.total`` of the kept units may be, in the cost's own unit.
        connections: names of the weights whose single entries may be zeroed.
        connection_share: share of the *remaining* entries of those weights that stay non-zero, in (0, 1];
            1 leaves connections alone.
        connection_shares: shares of weights by name that have one of their own, for joint mode.
        writers: weight slices that produce units, described like readers. Only used to know which entries of
            ``connections`` remain once units are removed; without them an entry remains when its reader does.
        with_followers: adds to units that stay which others stay for their sake: bool ``[unit_count]`` becomes longer.
            Writers may name these by their places there.
        keep_counts: units that stay in each group, in the order of ``groups``: the layer-wise targets of joint
            mode, whose cost must be within the budget. None lets joint mode keep the same share of every group, the
            largest that meets the budget.
        counts_alone: whether these counts are all that is asked for: the budget is then the most that they may cost,
            and no reason to keep more where they cost less.
        start: units that there are in the beginning, where a training goes on from a smaller network: bool
            ``[unit_count]``; None: all. The others may come back while the budget is above what these cost.
        held: names of reader tensors that hold gates alone and no weights: training leaves them what they are, and in
            the network of a plan each position is what it was or zero, so that nothing of them need remain.
    """

    unit_count: int
    groups: tuple[GateGroup, ...]
    readers: tuple[Reader, ...]
    cost: CostModel
    budget: float
    connections: tuple[str, ...]
    connection_share: float
    writers: tuple[Reader, ...] = ()
    with_followers: Callable[[KeepArray], KeepArray] = field(default=_alone)
    keep_counts: tuple[int, ...] | None = None
    counts_alone: bool = False
    held: frozenset[str] = frozenset()
    start: KeepArray | None = None
    connection_shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def dense(self) -> float:
        """What all units together cost, in the unit of the budget."""
        return self.cost.total(np.ones(self.unit_count, np.bool_))

    @property
    def left(self) -> float:
        """Share of the whole network that may stay: of the cost of its units, and of their connections."""
        dense = self.dense
        return (self.budget / dense if dense > self.budget else 1.0) * self.connection_share

    @property
    def started(self) -> KeepArray:
        """Units that there are in the beginning: bool ``[unit_count]``."""
        return np.ones(self.unit_count, np.bool_) if self.start is None else self.start

    def share_of(self, weight: str) -> float:
        """Return the share of the remaining entries of a weight that stay."""
        return self.connection_shares.get(weight, self.connection_share)

    @property
    def thinned(self) -> tuple[str, ...]:
        """Names of the weights whose connections are not left alone."""
        return tuple(name for name in self.connections if self.share_of(name) < 1)
