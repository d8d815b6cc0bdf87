"""Units and groups: what can be removed together, what competes, and why the rest must stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.admm.problem import Reader, UnitRange
from onnxadmm.errors import OptionError
from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.constants import free_name, value_names
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.graph.shapes import Shapes
from onnxadmm.rules.analyse import analyse
from onnxadmm.rules.edit import Kept
from onnxadmm.rules.facts import CostTerm, Facts, ZeroPoint
from onnxadmm.rules.labels import LabelArray
from onnxadmm.units.balance import Blocks, settle_balances
from onnxadmm.units.bodies import inner_weights
from onnxadmm.units.followers import Followers, following, number_followers
from onnxadmm.units.occupancy import AxisName, Occupancy, find_occupancy
from onnxadmm.units.origins import Origin, resolve_reads
from onnxadmm.units.rehearsal import refusals
from onnxadmm.units.stretch import stretch

_WEIGHT_TYPES = frozenset(
    onnx_ir.DataType[name]
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT8", "UINT8", "INT4")
)

UnitAxes = tuple[LabelArray | None, ...]


_MOST_SHOWN, _MOST_LOCKED_SHOWN = 5, 2


@dataclass(frozen=True)
class Group(UnitRange):
    """Units that compete, with what they occupy; named after the weight that writes them.

    Attributes:
        layers: names of the nodes that own the weights they occupy as writers.
        tensors: names of those weights.
        columns: whether they are columns that Gathers pick and nothing else, of which no vector is made.
    """

    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    columns: bool = False

    def matches(self, pattern: str) -> bool:
        """Tell whether a pattern (``*`` and ``?``) fits the group's name, a layer or a weight of it."""
        return _matches(pattern, self.name, self.layers, self.tensors)


@dataclass(frozen=True)
class Gate:
    """Where a sum over an activation reads units: multiplied by zeros there, they cannot be seen behind it.

    Attributes:
        result: name of the first result of the node that sums.
        operand: index of the activation among its operands.
        shape: ``[n]`` or ``[n, 1, ...]``, which meets the axis of the activation when it is broadcast.
        dtype: of the activation.
        reader: the constant that is multiplied in, under a name that the model does not use, and its units.
    """

    result: str
    operand: int
    shape: tuple[int, ...]
    dtype: onnx_ir.DataType
    reader: Reader


@dataclass(frozen=True)
class LockedGroup:
    """Units that must stay, and the operator and reason why."""

    name: str
    count: int
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Units:
    """All units of a model.

    Attributes:
        count: number of units that may go; they are numbered from 0 and contiguous in each group.
        groups: the groups that may shrink, in the order of the graph.
        locked: the groups that may not.
        readers: the weight slices whose zeros hide a unit.
        gates: the sums over activations that see a unit as well, and have to be given zeros.
        writers: the weight slices that produce a unit, or a follower.
        zero_points: for a quantised weight, which number stands for zero.
        axes: for each value, the unit at each position of each axis (-1: stays), None for a whole axis. Numbers from
            ``count`` on are those of ``followers``.
        mac_terms, parameter_terms: cost as products of kept lengths, for one sample.
        shapes: sample shapes of every value before removal.
        inexact: operators that mix along an axis which may shrink; empty unless inexact pruning was asked for.
        followers: units that go with the last of others: channels of which single columns may go.
        columns: results of the Gathers that pick these columns; empty unless columns were asked for.
        index_terms: how many indices these hold, as products of kept lengths: bytes of a file and no parameters.
    """

    count: int
    groups: tuple[Group, ...]
    locked: tuple[LockedGroup, ...]
    readers: tuple[Reader, ...]
    gates: tuple[Gate, ...]
    writers: tuple[Reader, ...]
    zero_points: Mapping[str, ZeroPoint]
    axes: Mapping[str, UnitAxes]
    mac_terms: tuple[CostTerm, ...]
    parameter_terms: tuple[CostTerm, ...]
    shapes: Shapes
    inexact: tuple[str, ...] = ()
    followers: Followers = field(default_factory=Followers)
    columns: tuple[str, ...] = ()
    index_terms: tuple[CostTerm, ...] = ()

    def __repr__(self) -> str:
        """Ten lines at most, however many groups there are."""
        lines = [f"Units({self.count:,} units in {len(self.groups)} groups that may shrink, {len(self.locked)} locked)"]
        lines += [f"  {group.name!r}: {group.count:,} units" for group in self.groups[:_MOST_SHOWN]]
        if len(self.groups) > _MOST_SHOWN:
            lines.append(f"  and {len(self.groups) - _MOST_SHOWN} more")
        lines += [f"  locked {lock.name!r}: {repr(lock.reason)[1:-1]}" for lock in self.locked[:_MOST_LOCKED_SHOWN]]
        if len(self.locked) > _MOST_LOCKED_SHOWN:
            lines.append(f"  and {len(self.locked) - _MOST_LOCKED_SHOWN} more locked")
        return "\n".join(lines)

    def group(self, name: str) -> Group | None:
        """Return the group of that name that may shrink."""
        return next((group for group in self.groups if group.name == name), None)

    def positions(
        self, name: str, keep: NDArray[np.bool_], shape: tuple[int, ...] | None = None
    ) -> tuple[LabelArray | None, ...] | None:
        """Return the positions of each axis of a value that stay when the units in ``keep`` do; None: all.

        An axis of ``[blocks, n]`` gives positions of the same kind: int64 ``[blocks, kept]``.

        Args:
            name: of the value.
            keep: which units stay, bool ``[count]``.
            shape: the lengths its axes have now, where they are not those in ``shapes``.

        Raises:
            LookupError: it cannot be told where the units are at that shape.
        """
        axes = self.axes.get(name)
        if axes is None:
            return None
        stays = self._stays(keep)
        result: list[LabelArray | None] = []
        for axis, units in enumerate(axes):
            if units is None or stays[units].all():
                result.append(None)
                continue
            if shape is not None:
                units = stretch(units, shape[axis])
            if units.ndim == 1:
                result.append(np.flatnonzero(stays[units]))
            else:
                result.append(np.stack([np.flatnonzero(row) for row in stays[units]]))
        return tuple(result)

    def losing(self, keep: NDArray[np.bool_]) -> set[str]:
        """Return the names of the values that lose positions, also where blocks do not keep equally many."""
        stays = self._stays(keep)
        return {
            name
            for name, axes in self.axes.items()
            if any(units is not None and not stays[units].all() for units in axes)
        }

    def _stays(self, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which units stay, followers as well; unit -1 is the last element: it always stays."""
        return np.append(self.followers.with_them(keep), True)

    def smallest(self) -> Kept:
        """Return which positions of a value stay when one unit of each block does, so that every axis shrinks."""
        keep = np.zeros(self.count, np.bool_)
        for group in self.groups:
            keep[[members[0] for members in group.members]] = True
        return lambda name: self.positions(name, keep)


def find_units(model: Model, *, inexact: bool = False, features: bool = False, ignore: Sequence[str] = ()) -> Units:
    """Find what can be removed from a model, and why the rest cannot.

    Model-local functions are seen through as if they were written out; one that cannot be locks what it is given.

    Args:
        model: any model; it is not changed.
        inexact: also prune through operators that mix along the removed axis.
        features: columns that a Gather picks behind a flattening are units of their own, see ``with_columns``.
        ignore: patterns of group, layer or weight names (``*`` and ``?``) that must stay.

    Raises:
        OptionError: a pattern of ``ignore`` matches nothing.
        ModelFileError: something is wrong with the model that no check has foreseen.
    """
    with analysing(model, "the search for units"):
        whole = inline(model)
        refused: dict[str, str] = {}
        while True:
            facts = analyse(whole, inexact=inexact, features=features, refused=refused)
            origins = resolve_reads(facts)
            blocks = settle_balances(facts, origins)
            occupancy = find_occupancy(facts, origins)
            units = _Numbering(facts, origins, blocks, occupancy, ignore, value_names(whole)).number()
            found = refusals(whole, units.shapes, units.smallest()) if units.groups else {}
            if found.keys() <= refused.keys():
                return units
            refused |= found


class _Numbering:
    """Turns the union-find into numbered units; lives for one call."""

    def __init__(
        self,
        facts: Facts,
        origins: Sequence[Origin],
        blocks: Sequence[Blocks],
        occupancy: Occupancy,
        ignore: Sequence[str],
        names: set[str],
    ) -> None:
        self._facts = facts
        self._names = names
        self._origins = origins
        self._blocks = {block.key: block for block in blocks}
        self._occupancy = occupancy
        self._ignore = ignore
        self._used: dict[str, int] = {}  # how often a name was given, the last number behind it
        self._matched: set[str] = set()
        self._inner = inner_weights(facts, _WEIGHT_TYPES)
        self._units = np.full(facts.labels.count, -1, dtype=np.int64)

    def number(self) -> Units:
        groups: list[Group] = []
        locked: list[LockedGroup] = []
        follow: list[tuple[str, LabelArray, bool]] = []
        columns, may_follow = {each.indices for each in self._facts.columns}, following(self._facts)
        count = 0
        for members in self._occupancy.classes():
            name, layers, tensors = self._describe(members)
            if tensors and not any(
                tensor in columns or self._facts.shapes.dtype(tensor) in _WEIGHT_TYPES for tensor in tensors
            ):
                continue  # other indices, masks and sizes alone are nothing to prune: they stay
            reason = self._reason(members, name, layers, tensors)
            if reason is not None:
                if tensors:
                    locked.append(LockedGroup(name, members.size, layers, tensors, reason))
                    found = members[np.isin(members, may_follow)]
                    if found.size and not self._is_ignored(name, layers, tensors):
                        follow.append((name, found, found.size == members.size))
                continue
            balanced = self._blocks.get(int(members[0]))
            blocks = None if balanced is None else balanced.of(members)
            self._units[members] = np.arange(count, count + members.size)
            picked = bool(tensors) and columns.issuperset(tensors)
            groups.append(Group(name, count, members.size, blocks, layers, tensors, columns=picked))
            count += members.size
        # No labels lead into a body: what stays there is told by its longest axis.
        locked += [
            LockedGroup(weight.name, max(weight.shape), (weight.layer,), (), weight.reason)
            for weight in self._inner
            if sum(size > 1 for size in weight.shape) > 1
        ]
        unmatched = [pattern for pattern in self._ignore if pattern not in self._matched]
        if unmatched:
            raise OptionError(
                "--ignore",
                expected="a pattern that matches a group, layer or weight",
                found=f"{unmatched[0]!r}, which matches none of {len(groups) + len(locked)} groups",
                way_out="list the names with `onnxadmm inspect`",
            )
        roots = self._facts.labels.roots(np.arange(self._facts.labels.count, dtype=np.int64))
        number = self._units[roots]
        followers, with_followers = number_followers(self._facts, self._units, follow)
        numbered = with_followers[roots]  # nothing reads followers
        zero_points = {name: point for name, point in self._facts.zero_points.items() if point is not None}
        points = {point.tensor for point in zero_points.values()}
        return Units(
            count=count,
            groups=tuple(groups),
            locked=tuple(locked),
            readers=tuple(self._slices(number, [(origin.tensor, origin.axis) for origin in self._origins])),
            gates=tuple(self._gates(number)),
            writers=tuple(
                self._slices(numbered, [place for place in self._occupancy.names if place[0] not in points | columns])
            ),
            zero_points=zero_points,
            axes={name: tuple(_unit_axis(axis, numbered) for axis in axes) for name, axes in self._facts.axes.items()},
            mac_terms=tuple(_unit_term(term, numbered) for term in self._facts.mac_terms),
            parameter_terms=tuple(_unit_term(term, numbered) for term in self._parameters()),
            shapes=self._facts.shapes,
            inexact=tuple(dict.fromkeys(where for where, axis in self._facts.inexact if (number[axis] >= 0).any())),
            followers=followers,
            columns=tuple(each.result for each in self._facts.columns),
            index_terms=tuple(
                _unit_term(CostTerm(each.indices, 1.0, (each.labels,)), number) for each in self._facts.columns
            ),
        )

    def _describe(self, members: LabelArray) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Return the name of a group, its layers and its weights."""
        tensors = tuple(dict.fromkeys(name for name, _ in self._occupancy.axes_of(members)))
        layers = tuple(dict.fromkeys(layer for name in tensors for layer in self._facts.owners.get(name, {}).values()))
        ranks = {name: len(self._facts.axes[name]) for name in tensors}
        best = next((name for name in tensors if ranks[name] > 1), tensors[0] if tensors else f"padding_{members[0]}")
        self._used[best] = repeat = self._used.get(best, 0) + 1
        name = best if repeat == 1 else f"{best}#{repeat}"
        while name in self._used and repeat > 1:  # a weight is really called that
            repeat += 1
            name = f"{best}#{repeat}"
        if repeat > 1:
            self._used[best], self._used[name] = repeat, 1
        return name, layers, tensors

    def _reason(self, members: LabelArray, name: str, layers: tuple[str, ...], tensors: tuple[str, ...]) -> str | None:
        reason = self._facts.labels.reason(int(members[0]))
        for pattern in self._ignore:
            if _matches(pattern, name, layers, tensors):
                self._matched.add(pattern)
                reason = reason or f"ignored by {pattern!r}"
        if reason is None and members.size == 1:
            owner = self._facts.titles.get(layers[0], layers[0]) if layers else name
            reason = f"all its positions live and die together behind {owner}"
        return reason

    def _is_ignored(self, name: str, layers: tuple[str, ...], tensors: tuple[str, ...]) -> bool:
        return any(_matches(pattern, name, layers, tensors) for pattern in self._ignore)

    def _slices(self, number: LabelArray, axes: Sequence[AxisName]) -> list[Reader]:
        """Return the units at each position of some axes of weights, where there are any."""
        slices: list[Reader] = []
        for tensor, axis in dict.fromkeys(axes):
            labels = self._facts.axes[tensor][axis]
            units = None if labels is None else _unit_axis(labels, number)
            if units is not None:
                slices.append(Reader(tensor, axis, units))
        return slices

    def _gates(self, number: LabelArray) -> list[Gate]:
        """Return the sums over activations in which there are units."""
        found: list[Gate] = []
        for read in self._facts.activation_reads:
            units = _unit_axis(read.labels, number)
            dtype = self._facts.shapes.dtype(read.value)
            if units is None or dtype is None:
                continue
            behind = len(self._facts.axes[read.value]) - 1 - read.axis
            shape = (units.size, *[1] * behind)
            found.append(
                Gate(
                    read.result,
                    read.operand,
                    shape,
                    dtype,
                    Reader(free_name(f"{read.value}_gate", self._names), 0, units),
                )
            )
        return found

    def _parameters(self) -> list[CostTerm]:
        terms: list[CostTerm] = []
        for name, axes in self._facts.axes.items():
            dtype = self._facts.shapes.dtype(name)
            shape = self._facts.shapes.shape(name)
            counts = name not in self._facts.scales and (dtype in _WEIGHT_TYPES or name in self._facts.zero_points)
            if name not in self._facts.constants or not shape or not counts:
                continue
            whole = [size for size, axis in zip(shape, axes, strict=True) if axis is None]
            terms.append(CostTerm(name, float(np.prod(whole)), tuple(axis for axis in axes if axis is not None)))
        terms += [CostTerm(weight.name, float(np.prod(weight.shape)), ()) for weight in self._inner]
        return terms


def _matches(pattern: str, name: str, layers: tuple[str, ...], tensors: tuple[str, ...]) -> bool:
    return any(fnmatchcase(candidate, pattern) for candidate in (name, *layers, *tensors))


def _unit_axis(axis: LabelArray | None, number: LabelArray) -> LabelArray | None:
    if axis is None:
        return None
    units = number[axis]
    return units if (units >= 0).any() else None


def _unit_term(term: CostTerm, number: LabelArray) -> CostTerm:
    return CostTerm(term.name, term.constant, tuple(number[axis] for axis in term.axes))
