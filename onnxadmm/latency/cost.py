"""What milliseconds a network takes without some of its units, as a cost that a budget can be of."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup
from onnxadmm.bench.simd import this_machine
from onnxadmm.graph.model import Model
from onnxadmm.latency.fit import fit, rows_of
from onnxadmm.latency.plans import draw, smallest
from onnxadmm.latency.store import read, write
from onnxadmm.latency.table import Table
from onnxadmm.latency.watch import Watch, batch_of
from onnxadmm.latency.work import Work, work_of
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits
from onnxadmm.units.products import Products
from onnxadmm.units.units import Units

KeepArray = NDArray[np.bool_]
DoubleArray = NDArray[np.float64]

#: Plans that prices are fitted to, beside the smallest one, and plans that these are checked with.
_FITTED: Final = 35
_CHECKED: Final = 12
#: All that are measured.
PLANS: Final = 1 + _FITTED + _CHECKED
#: For each network.
_SECONDS: Final = 0.3
#: Mean relative error above which the machine was busy with something else.
_DISTURBED: Final = 0.12
#: For one that was chosen.
_CHOSEN_SECONDS: Final = 1.0


class LatencyCost:
    """Milliseconds of one run, told from what some plans took; a ``MeasuredCost``.

    Attributes:
        whole_ms: milliseconds of the whole network.
        table: what is told from.
        stored: whether that was measured in an earlier run.
    """

    def __init__(self, watch: Watch, work: Work, table: Table, *, whole_ms: float, stored: bool) -> None:
        self.whole_ms = whole_ms
        self.table = table
        self.stored = stored
        self._watch = watch
        self._factor = 1.0
        self._fixed = table.fixed * whole_ms
        self._products = [_priced(work, step, terms) for step, terms in zip(table.steps, table.terms, strict=True)]

    @property
    def batch(self) -> int:
        """Batch size."""
        return self._watch.batch

    @property
    def threads(self) -> int:
        """Threads one operator may use."""
        return self._watch.threads

    def total(self, keep: KeepArray) -> float:
        """Return milliseconds when the units where ``keep`` is True stay: bool ``[unit count]``."""
        told = self._fixed + self.whole_ms * sum(products.total(keep) for products in self._products)
        return self._factor * told

    def marginal(self, keep: KeepArray) -> DoubleArray:
        """Return the milliseconds that each unit adds while the others are as in ``keep``: float64 ``[unit count]``."""
        slopes = sum((products.marginal(keep) for products in self._products), np.zeros(keep.size))
        return self._factor * self.whole_ms * slopes

    def measure(self, keep: KeepArray) -> float:
        """Return milliseconds of the network without the units that go, timed in turns with the whole one.

        Raises:
            ModelFileError: it does not run.
        """
        _, (ratio,) = self._watch.against([keep], seconds=_CHOSEN_SECONDS)
        return ratio * self.whole_ms

    def correct(self, factor: float) -> None:
        """From now on tell ``factor`` times as much."""
        self._factor *= factor

    def describe(self) -> str:
        """Say what is told from, in a sentence."""
        table = self.table
        when = "in an earlier run" if self.stored else f"in {table.seconds:.0f} s"
        return (
            f"The latency of {table.plans} plans was measured {when}, at batch {self.batch} on {self.threads} "
            f"thread{'s' if self.threads > 1 else ''}: what is told of plans that were not measured is off by "
            f"{100 * table.error:.1f} % on average, {100 * table.worst:.1f} % at most"
            f"{'; other processes seem to disturb it.' if table.error > _DISTURBED else '.'}"
        )


def latency_for(
    model: Model,
    units: Units,
    budget: Budget,
    limits: Limits,
    *,
    threads: int | None = None,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
    on_plan: Callable[[int], None] = lambda count: None,
) -> LatencyCost:
    """Measure what plans of a model take, or find what an earlier run has measured on this machine.

    Args:
        model: the one that the units were found in.
        budget: whose batch size it is.
        limits: how far the groups may shrink, and to which counts.
        threads: threads one operator may use; None: every core that this process may use.
        seed: of the plans and of the inputs.
        inputs: values of some inputs by name; the others are random.
        on_plan: told how many more plans are measured; ``PLANS`` of them in all, or none.

    Raises:
        ModelFileError: a network does not run at this batch size.
    """
    watch = Watch(
        model=model,
        units=units,
        batch=batch_of(model, budget.latency_batch),
        threads=this_machine().threads if threads is None else threads,
        seed=seed,
        inputs=inputs,
    )
    groups = limits.groups(model, units)
    work = work_of(model, units, groups)
    table = read(watch, groups, terms=len(work.terms))
    if table is not None:
        return LatencyCost(watch, work, table, whole_ms=watch.whole(seconds=_CHOSEN_SECONDS), stored=True)
    table, whole_ms = _measured(watch, work, groups, on_plan)
    write(table, watch, groups)
    return LatencyCost(watch, work, table, whole_ms=whole_ms, stored=False)


def _measured(
    watch: Watch, work: Work, groups: Sequence[GateGroup], on_plan: Callable[[int], None]
) -> tuple[Table, float]:
    began = time.perf_counter()
    count = watch.units.count
    scores = watch.units.followers.spread(count)
    drawn = draw(groups, count, count=_FITTED + _CHECKED, seed=watch.seed, scores=scores)
    keeps = [smallest(groups, count, scores=scores), *drawn]
    whole: list[float] = []
    ratios: list[float] = []
    while len(ratios) < len(keeps):
        some = keeps[len(ratios) :][: watch.at_once]
        milliseconds, found = watch.against(some, seconds=_SECONDS)
        whole.append(milliseconds)
        ratios += found
        on_plan(len(some))
    steps = work.steps(this_machine().simd_floats)
    # The whole network is a plan as well, and every ratio is relative to it.
    rows, taken = rows_of(work, [np.ones(count, np.bool_), *keeps], steps=steps), np.array([1.0, *ratios])
    told = fit(work, rows[:-_CHECKED], taken[:-_CHECKED]).of(rows[-_CHECKED:])
    errors = np.abs(told / taken[-_CHECKED:] - 1.0)
    prices = fit(work, rows, taken)
    table = Table(
        steps=steps,
        fixed=prices.fixed,
        terms=prices.terms,
        plans=len(keeps),
        error=float(errors.mean()),
        worst=float(errors.max()),
        seconds=time.perf_counter() - began,
    )
    return table, float(np.median(whole))


def _priced(work: Work, step: int, terms: DoubleArray) -> Products:
    """The terms of the work, each as its share of the whole network's time."""
    products = work.products(step=step)
    dense = products.values(products.lengths(np.ones(work.unit_count, np.bool_)))
    priced = (
        replace(term, constant=term.constant * price / value)
        for term, price, value in zip(work.terms, terms, dense, strict=True)
    )
    return Products(priced, work.unit_count, step=step)
