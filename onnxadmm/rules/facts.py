"""What the rules say of a model: labels of every axis, and what reads, locks, balances and costs them.

An axis is either an int64 array with one label per position, or None for an axis that stays whole (size
one, batch, spatial, anything that comes from a graph input).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir

from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.labels import LabelArray, Labels

Axis = LabelArray | None
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Operand:
    """One operand of a node, as a label function sees it.

    Attributes:
        name: of the value; empty for a stand-in.
        shape: its lengths at one sample of the free input dimensions, before removal. A free batch is 2, say.
        axes: for each axis, int64 ``[length]`` with the label of each position, or None: no position may go. Axes of
            length one are None. An axis of a weight that was labelled block by block is ``[blocks, length]``.
        constant: whether it is a weight: a constant, or computed from constants alone.
        dynamic: for each axis, whether its length depends on a free input dimension: positions there have no numbers.
        index: its place among the operands of the node; None for a stand-in.
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    constant: bool
    dynamic: tuple[bool, ...]
    index: int | None

    @classmethod
    def stand_in(cls, shape: Sequence[int], axes: Sequence[Axis]) -> "Operand":
        """Return what a node computes on the way, such as a product before a bias is added, to broadcast it."""
        return cls("", tuple(shape), tuple(axes), constant=False, dynamic=(False,) * len(shape), index=None)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def without_last_axes(self, count: int) -> "Operand":
        """Return the operand without its last ``count`` axes, such as the batch axes of stacked matrices."""
        last = max(self.rank - count, 0)
        return replace(self, shape=self.shape[:last], axes=self.axes[:last], dynamic=self.dynamic[:last])


@dataclass(frozen=True)
class Read:
    """A weight axis that consumes labelled positions: zeros there hide them from all that follows.

    Attributes:
        where: operator and name of the node, for messages.
        tensor: name of the weight.
        axis: number of the axis.
        labels: of its positions, ``[n]`` or ``[blocks, n]``.
    """

    where: str
    tensor: str
    axis: int
    labels: LabelArray


@dataclass(frozen=True)
class ActivationRead:
    """An axis of an activation that a node sums over: zeros multiplied in there hide its positions from the sum.

    Attributes:
        result: name of the first result of the node.
        operand: index of the activation among its operands.
        value: name of the activation.
        axis: number of the axis.
        labels: of its positions, ``[n]``.
    """

    result: str
    operand: int
    value: str
    axis: int
    labels: LabelArray


@dataclass(frozen=True)
class CostTerm:
    """Multiply-accumulates of a node for one sample, or parameters of a constant: a product of kept lengths.

    Attributes:
        name: of the node or the constant.
        constant: what the product of the kept length of each axis is multiplied by.
        axes: labels (or units, when those are numbered) of each axis that may shrink; one of shape ``[blocks, n]``
            counts the kept positions of one block.
    """

    name: str
    constant: float
    axes: tuple[LabelArray, ...]


@dataclass(frozen=True)
class Regrouped:
    """A run of axes of one tensor that a reshape turns into a run of axes of another.

    Attributes:
        where: operator and name of the node, for messages.
        sources: size and labels of each axis before.
        targets: size and labels of each axis after.
    """

    where: str
    sources: tuple[tuple[int, Axis], ...]
    targets: tuple[tuple[int, Axis], ...]


@dataclass(frozen=True)
class Columns:
    """A Gather behind a flattening whose columns are units of their own.

    Attributes:
        result: name of what it picks.
        indices: name of the constant that says which columns it picks.
        picked: labels of the flattened axis at these columns, ``[n]``; None where that axis has none.
        labels: of the columns that it gives, ``[n]``.
    """

    result: str
    indices: str
    picked: Axis
    labels: LabelArray


@dataclass(frozen=True)
class ZeroPoint:
    """The number that stands for zero in a quantised weight: a constant, one for all or one per position of an axis.

    Attributes:
        tensor: name of the constant.
        axis: of the weight, along which it has one entry per position.
    """

    tensor: str
    axis: int


@dataclass
class Facts:
    """All that the rules have said of a model. Label functions state it through ``Visit``.

    Attributes:
        shapes: sample shapes and small values of every tensor.
        labels: which labels live and die together, and which are locked.
        axes: by the name of a value, the labels of each of its axes.
        constants: by name, the values that are initializers or results of Constant nodes.
        derived: by the name of a value, the node that computes it from constants alone.
        reads: axes of weights that consume positions.
        activation_reads: axes of activations that a node sums over.
        balances: operator and name, and labels ``[blocks, n]``: every row keeps equally many.
        selections: labels of which at least one has to stay, since they are a whole axis.
        regrouped: runs of axes that a reshape splits or merges, settled when all locks are known.
        columns: Gathers behind a flattening whose columns are units of their own.
        mac_terms: multiply-accumulates.
        owners: by the name of a constant, the nodes that use it, with the names that messages give them.
        titles: by the name of a node, its operator and name.
        whole: axes of weights, by name and number, that hold no units, such as those of a kernel.
        zero_points: by the name of a quantised weight, what stands for zero in it, None for 0.
        quantised: by the name of a value that a node quantises, the name of the zero point, None for 0.
        zeroed: values in which zero stands where zero stood in the first operand of their node.
        scales: names of scales and zero points, which nobody counts as parameters.
        copies: first label of each axis whose positions are all alike.
        closed: nodes that run graphs of their own and lock what they touch, and why.
        rigid: by the name of a value that is read as plain numbers, why all of its positions stay.
        inexact: operator and name, and an axis that it mixes along and that may shrink nevertheless.
    """

    shapes: Shapes
    labels: Labels = field(default_factory=Labels)
    axes: dict[str, Axes] = field(default_factory=dict)
    constants: dict[str, onnx_ir.Value] = field(default_factory=dict)
    derived: dict[str, onnx_ir.Node] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    activation_reads: list[ActivationRead] = field(default_factory=list)
    balances: list[tuple[str, LabelArray]] = field(default_factory=list)
    selections: list[LabelArray] = field(default_factory=list)
    regrouped: list[Regrouped] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    mac_terms: list[CostTerm] = field(default_factory=list)
    owners: dict[str, dict[onnx_ir.Node, str]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    whole: set[tuple[str, int]] = field(default_factory=set)
    zero_points: dict[str, ZeroPoint | None] = field(default_factory=dict)
    quantised: dict[str, str | None] = field(default_factory=dict)
    zeroed: set[str] = field(default_factory=set)
    scales: set[str] = field(default_factory=set)
    copies: set[int] = field(default_factory=set)
    closed: list[tuple[onnx_ir.Node, str]] = field(default_factory=list)
    rigid: dict[str, str] = field(default_factory=dict)
    inexact: list[tuple[str, LabelArray]] = field(default_factory=list)
