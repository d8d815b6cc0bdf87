"""Before and after in figures: what a run puts into its report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import Problem
from onnxadmm.bench.byte_products import byte_products_are_exact, multiplies_signed_bytes
from onnxadmm.bench.identity import identify
from onnxadmm.bench.inputs import batch_is_free
from onnxadmm.bench.latency import LARGE, measure_latency
from onnxadmm.bench.latency import SECONDS as SECONDS_OF_LATENCY
from onnxadmm.bench.profile import SECONDS as SECONDS_OF_PROFILE
from onnxadmm.bench.profile import Profile, profile_nodes
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.sizes import measure_sizes
from onnxadmm.bench.versions import package_versions
from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model
from onnxadmm.graph.stated import with_input_shapes
from onnxadmm.latency.cost import LatencyCost
from onnxadmm.plan.budget import Budget
from onnxadmm.progress import Iteration, Progress
from onnxadmm.report.findings import find_warnings
from onnxadmm.report.layers import ProfileLine
from onnxadmm.report.report import (
    THE_ORIGINAL,
    BudgetLine,
    Column,
    GroupLine,
    LatencyLine,
    Report,
    Score,
    StageTime,
    VerificationLine,
    latency_lines,
)
from onnxadmm.rewrite.verify import Verification
from onnxadmm.run.layers import computing_nodes, connections_line, layer_lines, tensor_lines
from onnxadmm.run.trainings import Training
from onnxadmm.run.variants import Variant, variant_line
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.metrics import Metrics
from onnxadmm.units.cost import Cost
from onnxadmm.units.feeding import fed_groups
from onnxadmm.units.units import Units, find_units

Option = str | int | float | bool | None


@dataclass(frozen=True)
class Outcome:
    """What is compared, and how the one became the other.

    Attributes:
        original: the model as given.
        analysed: the model as its units were found.
        result: the model as written.
        units, keep: the units of the analysed model, and which of them stayed: bool ``[units.count]``.
        zeros: pruned connections by weight.
        budget: as asked.
        latency: what plans of the model take, where the budget is of that.
        problem: what was solved.
        verification: of the shrunk model against the masked original, before retraining.
    """

    original: Model
    analysed: Model
    result: Model
    units: Units
    keep: NDArray[np.bool_]
    zeros: Mapping[str, NDArray[np.bool_]]
    budget: Budget | None
    latency: LatencyCost | None
    problem: Problem
    verification: Verification


@dataclass(frozen=True)
class Quality:
    """Loss and accuracy of both models on some data; None where there are none."""

    before: Metrics | None
    after: Metrics | None


@dataclass(frozen=True)
class Timing:
    """How original and result are timed.

    Attributes:
        batch: the larger batch size beside 1.
        threads: of one operator; None: every core this process may use.

    Raises:
        OptionError: a number is below 1.
    """

    batch: int = LARGE
    threads: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("--bench-batch", self.batch), ("--bench-threads", self.threads)):
            if value is not None and value < 1:
                raise OptionError(option, expected="at least 1", found=str(value), way_out="give a larger number")


def seconds_of_timing(model: Model, timing: Timing | None) -> float:
    """Return how long ``make_report`` times models like this one."""
    if timing is None:
        return 0.0
    sizes = {1, timing.batch} if batch_is_free(model) else {1}
    return len(sizes) * SECONDS_OF_LATENCY + SECONDS_OF_PROFILE


def make_report(
    outcome: Outcome,
    *,
    held_out: Quality,
    test: Quality,
    command: str,
    options: Mapping[str, Option],
    seed: int,
    inputs: Mapping[str, object],
    notes: Sequence[str],
    warnings: Sequence[str],
    history: Sequence[Iteration],
    stages: Sequence[StageTime],
    progress: Progress,
    timing: Timing | None,
    variants: Sequence[tuple[Variant, Column]] = (),
    taught_by: str = THE_ORIGINAL,
) -> Report:
    """Measure sizes, costs and latency, and put everything into a report.

    Args:
        command: what makes the run again.
        inputs: values of inputs by name, for the latency.
        timing: how the latency is measured; None: not at all.
        variants: the result in other forms, with their figures.
        taught_by: whose answers stand for labels where there are none.
    """
    machine = this_machine()
    result_units = find_units(outcome.result)
    before = column(outcome.original, find_units(outcome.original), held_out.before, test.before, taught_by)
    after = column(outcome.result, result_units, held_out.after, test.after, taught_by)
    latency: tuple[LatencyLine, ...] = ()
    of_variants: list[tuple[LatencyLine, ...]] = [() for _ in variants]
    skipped: tuple[str, ...] = ()
    profile: Profile | None = None
    if timing is not None:
        began = time.perf_counter()
        threads = timing.threads if timing.threads is not None else machine.threads
        latencies = measure_latency(
            [outcome.original, outcome.result, *(variant.model for variant, _ in variants)],
            names=["before", "after", *(variant.name for variant, _ in variants)],
            against=[0, *(1 for _ in variants)],
            large=timing.batch,
            threads=threads,
            seed=seed,
            inputs=inputs,
            progress=progress,
        )
        latency, skipped = latency_lines(latencies), latencies.skipped
        of_variants = [latency_lines(latencies, before=1, after=place) for place in range(2, 2 + len(variants))]
        if latency:
            # Of the original as it was analysed: its nodes are those that the layers of the result come from.
            wanted = (computing_nodes(outcome.units), computing_nodes(result_units))
            sized = with_input_shapes(outcome.analysed, latencies.sizes)
            profile, reason = _profile((sized, outcome.result), wanted, latency[-1].batch, threads, seed, inputs)
            skipped += (reason,) if reason else ()
        stages = (*stages, StageTime("latency", time.perf_counter() - began))
    budgets = tuple(_budgets(outcome, result_units, latency))
    groups = tuple(_groups(outcome))
    proof = outcome.verification
    verification = VerificationLine(
        snr_db=proof.snr_db,
        max_abs_error=proof.max_abs_error,
        inputs=proof.inputs_tried,
        threshold_db=proof.threshold_db,
        passed=proof.passed,
    )
    found = find_warnings(
        before=before,
        after=after,
        budgets=budgets,
        latency=latency,
        verification=verification,
        groups=groups,
        simd_floats=machine.simd_floats,
        cuts_bytes_off=multiplies_signed_bytes(outcome.original) and not byte_products_are_exact(),
    )
    lines = [
        variant_line(variant, figures, plain=after, latency=timed, machine=machine)
        for (variant, figures), timed in zip(variants, of_variants, strict=True)
    ]
    found += tuple(sentence for _, losses in lines for sentence in losses)
    fed, given = tensor_lines(outcome.result)
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        options=dict(options),
        seed=seed,
        versions=package_versions(),
        machine=machine,
        before=before,
        after=after,
        budgets=budgets,
        latency=latency,
        verification=verification,
        groups=groups,
        simplified=tuple(note for note in notes if note),
        warnings=(*warnings, *found, *skipped),
        history=tuple(history),
        stages=tuple(stages),
        inputs=fed,
        outputs=given,
        layers=layer_lines(outcome.analysed, outcome.units, outcome.keep, outcome.result, result_units, profile),
        profile=None if profile is None else _profile_line(profile),
        connections=connections_line(outcome.analysed, outcome.units, outcome.keep, outcome.zeros),
        variants=tuple(line for line, _ in lines),
    )


def _profile(
    models: Sequence[Model],
    wanted: Sequence[frozenset[str]],
    batch: int,
    threads: int,
    seed: int,
    inputs: Mapping[str, object],
) -> tuple[Profile | None, str]:
    """Profile models node by node; or say why that was not possible, which ends no run."""
    try:
        return profile_nodes(models, wanted, batch=batch, threads=threads, seed=seed, inputs=inputs), ""
    except (ModelFileError, OSError, ValueError) as error:
        return None, f"the layers were not timed: {error}"


def _profile_line(profile: Profile) -> ProfileLine:
    before, after = profile.models
    return ProfileLine(profile.batch, profile.threads, profile.runs, before.other_ms, after.other_ms)


def column_of(training: Training, model: Model) -> Column:
    """The figures of a model, measured with the data of a run."""

    def measured(data: ArrayDataset | None) -> Metrics | None:
        return None if data is None else training.metrics(model, data)

    found = measured(training.held_out), measured(training.test)
    return column(model, find_units(model), *found, training.who_teaches)


def column(
    model: Model, units: Units, held_out: Metrics | None, test: Metrics | None, taught_by: str = THE_ORIGINAL
) -> Column:
    """The figures of a model.

    Args:
        taught_by: whose answers stand for labels where there are none.
    """
    sizes = measure_sizes(model)
    return Column(
        model=identify(model),
        file_bytes=sizes.file_bytes,
        parameters=sizes.parameters,
        nonzero_parameters=sizes.nonzero_parameters,
        nodes=sizes.nodes,
        macs=round(Cost(units, "macs").dense()),
        heldout=_score(held_out, taught_by),
        test=_score(test, taught_by),
    )


def _score(metrics: Metrics | None, taught_by: str) -> Score | None:
    if metrics is None:
        return None
    against = "" if metrics.against == "labels" else f" against {taught_by}"
    if metrics.figure is not None:
        name, value = metrics.figure
        return Score(f"{name}{against}", value, metrics.count)
    if metrics.accuracy is None:
        return Score(f"mse{against}", metrics.loss, metrics.count)
    if not against:
        return Score("accuracy", metrics.accuracy, metrics.count)
    with_whom = "" if taught_by == THE_ORIGINAL else f" with {taught_by}"
    return Score(f"agreement{with_whom}", metrics.accuracy, metrics.count)


def _budgets(outcome: Outcome, result_units: Units, latency: Sequence[LatencyLine]) -> list[BudgetLine]:
    lines: list[BudgetLine] = []
    budget = outcome.budget
    for kind, amount in {} if budget is None else budget.amounts.items():
        assert budget is not None  # it has an amount
        if kind == "size":
            original, reached = float(outcome.original.file_bytes), float(outcome.result.file_bytes)
        elif kind == "latency":
            original, reached = _latencies(outcome, latency)
        else:
            original, reached = Cost(outcome.units, kind).dense(), Cost(result_units, kind).dense()
        limit = budget.resolve(kind, original)
        lines.append(BudgetLine(kind=kind, asked=str(amount), limit=limit, original=original, reached=reached))
    if outcome.problem.connection_shares or (budget is not None and budget.connections is not None):
        lines.append(_connections(outcome))
    return lines


def _connections(outcome: Outcome) -> BudgetLine:
    """The share of the weights that is not zero, of those whose connections were not left alone."""
    values, problem = constants_by_name(outcome.result), outcome.problem
    found = {name: constant(values[name]) for name in outcome.zeros if name in values}
    arrays = {name: array for name, array in found.items() if array is not None}
    total = max(1, sum(array.size for array in arrays.values()))
    alive = sum(int(np.count_nonzero(array)) for array in arrays.values())
    asked, share = f"{problem.connection_share:g}", problem.connection_share
    if problem.connection_shares:
        # One entry stays at least; counts are no more than their shares, but for rounding.
        most = [max(1.0, problem.share_of(name) * array.size + 1e-9) for name, array in arrays.items()]
        asked, share = "by layer", sum(most) / total
    return BudgetLine("connections", asked, share, 1.0, alive / total)


def _latencies(outcome: Outcome, latency: Sequence[LatencyLine]) -> tuple[float, float]:
    """Milliseconds before and after: from what is timed in the end, or where nothing is from another measurement."""
    cost = outcome.latency
    assert cost is not None  # there is a budget of it
    for line in latency:
        if line.batch == cost.batch and line.threads == cost.threads:
            return line.before.median_ms, line.before.median_ms / line.speedup
    return cost.whole_ms, cost.measure(outcome.keep)


def _groups(outcome: Outcome) -> list[GroupLine]:
    feeds, gone = fed_groups(outcome.units), outcome.units.followers.gone(outcome.keep)
    free = [
        GroupLine(
            group.name,
            group.layers,
            group.count,
            int(outcome.keep[group.places].sum()),
            None,
            feeds[group.name],
        )
        for group in outcome.units.groups
    ]
    return [
        *free,
        *(
            GroupLine(
                lock.name,
                lock.layers,
                lock.count,
                lock.count - gone.get(lock.name, 0),
                None if lock.name in gone else lock.reason,  # channels that followed their columns have shrunk
                feeds[lock.name],
            )
            for lock in outcome.units.locked
        ),
    ]
