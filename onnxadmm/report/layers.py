"""What a report says of single layers, of single connections, and of what goes in and out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorLine:
    """An input or an output of a model.

    Attributes:
        name: as the model calls it.
        dtype: as numpy calls it, e.g. ``"float32"``; empty where the file does not say.
        shape: lengths of its axes, or what the file calls those that it leaves free.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class LayerLine:
    """One node that computes or holds weights, before and after.

    Attributes:
        name: of the node, or of its first result where it has none.
        operator: its type.
        group: the group that it writes, None where that is none, or is no group of weights.
        units_before, units_after: of that group; None without one.
        parameters_before, parameters_after: elements of its weights. After is None where the result has no such node.
        macs_before, macs_after: multiply-accumulates for one sample, likewise.
        ms_before, ms_after: milliseconds of one run, None where they were not measured or the node was fused away.
    """

    name: str
    operator: str
    group: str | None
    units_before: int | None
    units_after: int | None
    parameters_before: int
    parameters_after: int | None
    macs_before: int
    macs_after: int | None
    ms_before: float | None
    ms_after: float | None


@dataclass(frozen=True)
class ProfileLine:
    """How the milliseconds of the layers were measured, by onnxruntime's own profile.

    Attributes:
        batch: batch size.
        threads: threads one operator may use.
        runs: runs whose median was taken.
        other_before_ms, other_after_ms: what belongs to no layer: pooling, copies, changes of the memory layout.
    """

    batch: int
    threads: int
    runs: int
    other_before_ms: float
    other_after_ms: float


@dataclass(frozen=True)
class WeightLine:
    """The connections of one weight, those to removed units left out.

    Attributes:
        name: of the weight.
        kept: connections that stayed.
        pruned: connections that are zero now.
    """

    name: str
    kept: int
    pruned: int


@dataclass(frozen=True)
class ConnectionsLine:
    """What the pruned connections weighed in the original, beside those that stayed.

    A connection's size is that of its weight in the original, relative to the root mean square of its tensor: so layers
    of different scale compare.

    Attributes:
        edges: of the bins, ascending; the last bin holds everything above its lower edge as well.
        kept, pruned: connections per bin, one fewer than edges.
        weights: every weight whose connections were pruned, in the order of the graph.
    """

    edges: tuple[float, ...]
    kept: tuple[int, ...]
    pruned: tuple[int, ...]
    weights: tuple[WeightLine, ...]

    def __post_init__(self) -> None:
        if not len(self.edges) - 1 == len(self.kept) == len(self.pruned):
            raise ValueError(f"{len(self.edges)} edges of {len(self.kept)} and {len(self.pruned)} bins")
