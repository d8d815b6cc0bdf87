"""From units and a budget to what the solver is given."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.bounds import Bound, Bounds
from onnxadmm.admm.problem import GateGroup, MeasuredCost, Problem, Reader
from onnxadmm.admm.settle import AIM
from onnxadmm.errors import NothingToPruneError, OptionError
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget, Share, amount_options, parse_share
from onnxadmm.units.cost import Cost, CostKind, FileSize
from onnxadmm.units.units import Group, Units
from onnxadmm.units.vanishing import may_vanish

#: Weights that a message names.
_MOST_NAMED: Final = 8


class Latency(MeasuredCost, Protocol):
    """Milliseconds of one run."""

    @property
    def whole_ms(self) -> float:
        """Milliseconds of the whole network."""
        ...


class UnitCount:
    """The cost in which every unit costs one."""

    def total(self, keep: NDArray[np.bool_]) -> float:
        """Return how many units stay: bool ``[unit count]``."""
        return float(np.count_nonzero(keep))

    def marginal(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what each unit adds: float64 ``[unit count]``."""
        return np.ones(keep.size)


@dataclass(frozen=True)
class Limits:
    """How far a group may shrink.

    Attributes:
        keep_at_least: fewest units that stay in a group; 0: none where the group ends a branch that a sum would be
            without, and the branch goes with the last of them. All others keep one. None: 1, and where ``compress`` has
            a budget of latency 0: a branch of some units takes the time of its operators.
        max_ratio: largest share of a group's units that goes, read as a number where it is given as ``"50%"``.
        round_to: kept counts of at least this many are multiples of it; None: the CPU's SIMD block where a plan is
            trained, free elsewhere. Columns behind a flattening, of which no vector is made, are free everywhere.

    Raises:
        OptionError: a limit is out of range.

    Examples:
        ```python
        careful = oa.Limits(keep_at_least=4, max_ratio="75%", round_to=8)
        plan = oa.rank("model.onnx", ratio=0.9, limits=careful)
        ```
    """

    keep_at_least: int | None = None
    max_ratio: Share = 1.0
    round_to: int | None = None

    def __post_init__(self) -> None:
        largest = parse_share(self.max_ratio, option="--max-ratio")
        object.__setattr__(self, "max_ratio", largest)  # frozen from here on
        for option, value, least in (("--keep-at-least", self.keep_at_least, 0), ("--round-to", self.round_to, 1)):
            if value is not None and value < least:
                raise OptionError(
                    option, expected=f"at least {least}", found=str(value), way_out="give a larger number"
                )
        if not 0 < largest <= 1:
            raise OptionError(
                "--max-ratio", expected="above 0 and at most 1", found=f"{largest:g}", way_out="give a share"
            )

    def under(self, goal: Budget | None) -> "Limits":
        """Return the limits of a run with this budget, where nothing was said of branches."""
        if self.keep_at_least is not None:
            return self
        return replace(self, keep_at_least=0 if goal is not None and goal.latency is not None else 1)

    def groups(self, model: Model, units: Units) -> tuple[GateGroup, ...]:
        """Return the groups of a model as the solver sees them.

        Args:
            model: the model the units were found in.
            units: its units.
        """
        vanishing = may_vanish(model, units) if self.keep_at_least == 0 else frozenset()
        return tuple(self.of(group, least=0 if group.start in vanishing else 1) for group in units.groups)

    def of(self, group: Group, *, least: int = 1) -> GateGroup:
        """Return a group as the solver sees it.

        Args:
            least: units of each block that stay whatever the limits say.
        """
        return GateGroup(
            name=group.name,
            start=group.start,
            count=group.count,
            keep_at_least=min(
                max(least, -(-(self.keep_at_least or 0) // group.block_count)), group.count // group.block_count
            ),
            keep_at_most_removed=int(float(self.max_ratio) * group.count + 1e-9),
            multiple=1 if self.round_to is None or group.columns else self.round_to,
            blocks=group.blocks,
        )


def state_problem(
    model: Model,
    units: Units,
    budget: Budget | None,
    limits: Limits,
    *,
    targets: Mapping[str, float] | None = None,
    connection_targets: Mapping[str, float] | None = None,
    unit_share: float | None = None,
    file: FileSize | None = None,
    near: NDArray[np.bool_] | None = None,
    latency: Latency | None = None,
) -> Problem:
    """State the optimisation problem of a model.

    Args:
        budget: what the result may cost; with targets it may be None, and is then what the targets cost.
        file: how large the model is as a file; only asked where the budget counts that.
        near: units that about stay, bool ``[units.count]``, where that is known (see ``Cost``).
        latency: what plans take; only asked where the budget is of that, and ``settle`` meets it.
        targets: share of the units that stays, by pattern of group, layer or weight names; groups that no pattern
            matches stay whole. The first pattern that matches counts.
        connection_targets: share of the connections that stays, by pattern of layer or weight names, in place of that
            of the budget. The first pattern that matches counts.
        unit_share: share of all units that stays at most, whatever they cost; None: any.

    Raises:
        NothingToPruneError: no group may shrink; the message names the first reason.
        OptionError: a pattern matches nothing, or a share is out of range.
    """
    refuse_nothing_to_prune(units)
    keep_counts = None if not targets else _keep_counts(units, targets)
    kinds = tuple(budget.amounts) if budget is not None else ()
    bounds = [_bound(units, kind, budget, file, near, latency) for kind in kinds or ("params",)]
    if keep_counts is not None and not kinds:
        bounds = [replace(bound, limit=bound.cost.total(_first_units(units, keep_counts))) for bound in bounds]
    if unit_share is not None:
        most = Bound(f"{unit_share:.0%} of the units", UnitCount(), math.floor(unit_share * units.count + 1e-9))
        bounds = [*bounds, most] if kinds else [most]
    cost = Bounds(bounds)
    return Problem(
        unit_count=units.count,
        groups=limits.groups(model, units),
        readers=(*units.readers, *(gate.reader for gate in units.gates)),
        writers=units.writers,
        with_followers=units.followers.with_them,
        cost=cost,
        budget=cost.limit,
        keep_counts=keep_counts,
        counts_alone=keep_counts is not None and not kinds,
        held=frozenset(gate.reader.tensor for gate in units.gates),
        connections=connection_weights(model),
        connection_share=1.0 if budget is None else budget.connection_share,
        connection_shares=_connection_shares(model, connection_targets or {}),
    )


def _bound(
    units: Units,
    kind: CostKind,
    budget: Budget | None,
    file: FileSize | None,
    near: NDArray[np.bool_] | None,
    latency: Latency | None,
) -> Bound:
    """Return what a budget allows of one kind; all there is where it does not count that."""
    if kind == "latency":
        assert budget is not None  # else its kinds are counted ones
        assert latency is not None, "a budget of latency needs what measures it"
        return _latency_bound(budget, latency, units.count)
    cost = Cost(units, kind, file=file if kind == "size" else None, near=near)
    dense = float(file.original) if kind == "size" and file is not None else cost.dense()
    if budget is None or kind not in budget.amounts:
        return Bound("", cost, dense)
    limit = budget.resolve(kind, dense)
    # A file that may be as large as it was may lose nothing, though what tells of a loss would make it larger.
    unit = "bytes" if kind == "size" else ""
    return Bound(f"--{kind} {budget.amounts[kind]}", cost, cost.dense() if limit >= dense else limit, unit=unit)


def _latency_bound(budget: Budget, latency: Latency, unit_count: int) -> Bound:
    limit, told = budget.resolve("latency", latency.whole_ms), latency.total(np.ones(unit_count, np.bool_))
    # What may take as long as before may lose nothing, however long it is told to take.
    aim = 1.0 if limit >= latency.whole_ms else AIM
    most = told if limit >= latency.whole_ms else AIM * limit
    return Bound(f"--latency {budget.latency}", latency, most, measured=latency, unit="ms", aim=aim)


def refuse_contradictions(
    budget: Budget | None,
    targets: Mapping[str, float],
    *,
    connection_targets: Mapping[str, float],
    layer_wise: bool,
) -> None:
    """Refuse a goal that is missing, or targets per layer where there is one budget for all.

    Raises:
        OptionError: so it is.
    """
    if connection_targets and not layer_wise:
        raise OptionError(
            "--connection-target",
            expected="--data with --mode joint, where every layer has a target of its own",
            found="--mode holistic, or --calibrate",
            way_out="give --mode joint as well, or --connections in its place: one share for all",
        )
    if budget is None and not targets and not connection_targets:
        raise OptionError(
            "the budget",
            expected="an amount",
            found="none",
            way_out=f"give {amount_options()}, --connections, or --mode joint with --target",
        )
    if targets and not layer_wise:
        raise OptionError(
            "--target", expected="--mode joint", found="--mode holistic", way_out="give --mode joint as well"
        )


def describe_goal(
    budget: Budget | None,
    targets: Mapping[str, float],
    *,
    connection_targets: Mapping[str, float],
    unit_share: float | None = None,
) -> str:
    """Return budget and targets in words."""
    parts = [] if unit_share is None else [f"{unit_share:g} of all units"]
    parts += [] if budget is None else [budget.describe()]
    parts += [f"{pattern} keeps {share:g}" for pattern, share in targets.items()]
    parts += [f"{pattern} keeps {share:g} of its connections" for pattern, share in connection_targets.items()]
    return ", ".join(parts)


def _keep_counts(units: Units, targets: Mapping[str, float]) -> tuple[int, ...]:
    """Return how many units of each group stay, equally many in every block."""
    matched: set[str] = set()
    counts: list[int] = []
    led = 0
    for group in units.groups:
        pattern = next((pattern for pattern in targets if group.matches(pattern)), None)
        share = 1.0 if pattern is None else targets[pattern]
        matched.update(pattern for pattern in targets if group.matches(pattern))
        _refuse_share("--target", share)
        size = group.count // group.block_count
        counts.append(max(1, round(share * size)) * group.block_count)
        leads = np.isin(units.followers.leaders, group.numbers).any()
        led += int(leads and counts[-1] < group.count)
    if led > 1 or (led and not units.followers.is_plain):
        # What such counts cost at most is not known, and a budget below it would be refused when all is trained.
        raise OptionError(
            "--target",
            expected="columns of one flattening, whose channels are of one convolution, with --features",
            found="those of several",
            way_out="leave columns out of the targets, or give a budget in their place",
        )
    unmatched = [pattern for pattern in targets if pattern not in matched]
    if unmatched:
        raise OptionError(
            "--target",
            expected="a pattern that matches a group, layer or weight that may shrink",
            found=f"{unmatched[0]!r}, which matches none of {len(units.groups)}",
            way_out="list the names with `onnxadmm inspect`",
        )
    return tuple(counts)


def _connection_shares(model: Model, targets: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of the weights that have one of their own, by name."""
    # Names of each weight and of the nodes that read it.
    names = {
        name: [name, *(node.name or "" for node in value.consumers())]
        for name, value in model.ir.graph.initializers.items()
    }
    weights = connection_weights(model)
    shares: dict[str, float] = {}
    for pattern, share in targets.items():
        _refuse_share("--connection-target", share)
        found = [name for name in weights if any(fnmatchcase(each, pattern) for each in names[name])]
        if not found:
            raise OptionError(
                "--connection-target",
                expected="a pattern that matches a layer or weight whose connections can go",
                found=f"{pattern!r}, which matches none of {', '.join(weights[:_MOST_NAMED])}"
                + (", ..." if len(weights) > _MOST_NAMED else ""),
                way_out="list the names with `onnxadmm inspect`",
            )
        shares = {**dict.fromkeys(found, share), **shares}  # the first pattern that matches counts
    return shares


def _refuse_share(option: str, share: float) -> None:
    if not 0 < share <= 1:
        raise OptionError(
            option, expected="a share above 0 and at most 1", found=f"{share:g}", way_out="give what stays"
        )


def _first_units(units: Units, counts: Sequence[int]) -> NDArray[np.bool_]:
    """Keep the first units of every block, with as many followers as they can have: no choice of so many costs more.

    That holds where the followers are plain; ``_keep_counts`` refuses the others.
    """
    keep, spread = np.zeros(units.count, dtype=np.bool_), units.followers.spread(units.count)
    for group, count in zip(units.groups, counts, strict=True):
        for members in group.members:
            keep[members[np.argsort(-spread[members], kind="stable")[: count // group.block_count]]] = True
    return keep


def restrict_to(problem: Problem, weights: Collection[str], *, unseen: Collection[str] = ()) -> Problem:
    """Return the problem for a trainer that holds only some weights: units read by others stay.

    Args:
        unseen: weights that the loss does not depend on, as those of other outputs: units that they share with a
            weight of the trainer may go.
    """
    outside = [reader for reader in problem.readers if reader.tensor not in weights and reader.tensor not in unseen]
    inside = _units_of(reader for reader in problem.readers if reader.tensor in weights)
    alone = np.setdiff1d(_units_of(reader for reader in problem.readers if reader.tensor in unseen), inside)
    fixed = np.union1d(_units_of(outside), alone)
    groups = tuple(
        replace(group, keep_at_least=group.count // group.block_count, keep_at_most_removed=0)
        if np.isin(group.numbers, fixed).any()
        else group
        for group in problem.groups
    )
    return replace(
        problem,
        groups=groups,
        readers=tuple(reader for reader in problem.readers if reader.tensor in weights),
        connections=tuple(name for name in problem.connections if name in weights),
    )


def _units_of(readers: Iterable[Reader]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([np.empty(0, np.int64), *(reader.units.reshape(-1) for reader in readers)]))


def refuse_nothing_to_prune(units: Units) -> None:
    """Raise NothingToPruneError when no group may shrink."""
    if not units.groups:
        reasons = [f"{group.name}: {group.reason}" for group in units.locked]
        raise NothingToPruneError(
            "the model",
            expected="a group of channels or neurons that may shrink",
            found="; ".join(reasons[:3]) if reasons else "no weight with channels",
            way_out="see `onnxadmm inspect` for what locks each group",
        )


def connection_weights(model: Model) -> tuple[str, ...]:
    """Return the names of the float32 weights whose single entries may be zeroed: matrices and kernels."""
    found = []
    for name, value in model.ir.graph.initializers.items():
        shape = tuple(value.shape.numpy()) if value.shape is not None else ()
        if value.uses() and sum(size > 1 for size in shape) >= 2:
            array = constant(value)
            if array is not None and array.dtype == np.float32:
                found.append(name)
    return tuple(found)
