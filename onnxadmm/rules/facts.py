"""What the rules say of a model: labels of every axis, and what reads, locks, balances and costs them.

An axis is either an int64 array with one label per position, or None for an axis that stays whole (size
one, batch, spatial, anything that comes from a graph input).
"""

from dataclasses import dataclass, field

import onnx_ir

from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.labels import LabelArray, Labels

Axis = LabelArray | None
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Operand:
    """One operand of a node: its name, sample shape, axes, and whether it is computed from constants alone."""

    name: str
    shape: tuple[int, ...]
    axes: Axes
    constant: bool

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Read:
    """A weight axis that consumes labelled positions; ``labels`` is ``[n]`` or ``[blocks, n]``."""

    where: str
    tensor: str
    axis: int
    labels: LabelArray


@dataclass(frozen=True)
class ActivationRead:
    """An axis of an activation that a node sums over: zeros multiplied in there hide its positions from the sum.

    ``result`` names the node's first result, ``operand`` is the index of the activation among its operands.
    """

    result: str
    operand: int
    value: str
    axis: int
    labels: LabelArray


@dataclass(frozen=True)
class MacTerm:
    """Multiply-accumulates of one node for one sample: ``constant`` times the kept length of each axis.

    An axis of shape ``[blocks, n]`` counts the kept positions of one block.
    """

    node: str
    constant: float
    axes: tuple[LabelArray, ...]


@dataclass(frozen=True)
class Factored:
    """A run of axes of one tensor that a reshape turns into a run of axes of another: sizes and axes of both."""

    where: str
    sources: tuple[tuple[int, Axis], ...]
    targets: tuple[tuple[int, Axis], ...]


@dataclass(frozen=True)
class ZeroPoint:
    """The number that stands for zero in a quantised weight: a constant, one for all or one per position of an axis."""

    tensor: str
    axis: int


@dataclass
class Facts:
    """All that the rules have said of a model."""

    shapes: Shapes
    labels: Labels = field(default_factory=Labels)
    axes: dict[str, Axes] = field(default_factory=dict)
    constants: dict[str, onnx_ir.Value] = field(default_factory=dict)
    derived: dict[str, onnx_ir.Node] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    activation_reads: list[ActivationRead] = field(default_factory=list)
    balances: list[tuple[str, LabelArray]] = field(default_factory=list)
    selections: list[LabelArray] = field(default_factory=list)
    factored: list[Factored] = field(default_factory=list)
    mac_terms: list[MacTerm] = field(default_factory=list)
    owners: dict[str, list[str]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    whole: set[tuple[str, int]] = field(default_factory=set)
    zero_points: dict[str, "ZeroPoint | None"] = field(default_factory=dict)
    quantised: dict[str, str | None] = field(default_factory=dict)
    zeroed: set[str] = field(default_factory=set)
    grids: set[str] = field(default_factory=set)
    copies: set[int] = field(default_factory=set)
    rigid: dict[str, str] = field(default_factory=dict)
    inexact: list[tuple[str, LabelArray]] = field(default_factory=list)
