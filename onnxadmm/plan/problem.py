"""From units and a budget to what the solver is given."""

from dataclasses import dataclass

import numpy as np

from onnxadmm.admm.problem import GateGroup, Problem
from onnxadmm.errors import NothingToPruneError, OptionError
from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Group, Units


@dataclass(frozen=True)
class Limits:
    """How far a group may shrink.

    Attributes:
        keep_at_least: fewest units that stay in a group.
        max_ratio: largest share of a group's units that goes.
        round_to: kept counts of large groups are multiples of this; the CPU's SIMD block is a good choice, 1 is free.

    Raises:
        OptionError: a limit is out of range.
    """

    keep_at_least: int = 1
    max_ratio: float = 1.0
    round_to: int = 1

    def __post_init__(self) -> None:
        for option, value, least in (("--keep-at-least", self.keep_at_least, 1), ("--round-to", self.round_to, 1)):
            if value < least:
                raise OptionError(
                    option, expected=f"at least {least}", found=str(value), way_out="give a larger number"
                )
        if not 0 < self.max_ratio <= 1:
            raise OptionError(
                "--max-ratio", expected="above 0 and at most 1", found=f"{self.max_ratio:g}", way_out="give a share"
            )

    def of(self, group: Group) -> GateGroup:
        """Return the group as the solver sees it."""
        return GateGroup(
            name=group.name,
            start=group.start,
            count=group.count,
            keep_at_least=min(max(1, self.keep_at_least // group.block_count), group.count // group.block_count),
            keep_at_most_removed=int(self.max_ratio * group.count + 1e-9),
            multiple=self.round_to,
            blocks=group.blocks,
        )


def state_problem(model: Model, units: Units, budget: Budget, limits: Limits) -> Problem:
    """State the optimisation problem of a model.

    Raises:
        NothingToPruneError: no group may shrink; the message names the first reason.
    """
    refuse_nothing_to_prune(units)
    cost = Cost(units, budget.kind)
    return Problem(
        unit_count=units.count,
        groups=tuple(limits.of(group) for group in units.groups),
        readers=units.readers,
        writers=units.writers,
        cost=cost,
        budget=budget.resolve(cost.dense()),
        connections=connection_weights(model),
        connection_share=budget.connections if budget.connections is not None else 1.0,
    )


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
