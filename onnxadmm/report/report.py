"""The report of a compression: what was asked, what came out, and what proves it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Any, Final, Literal

from onnxadmm.bench.identity import ModelIdentity
from onnxadmm.bench.latency import Latencies
from onnxadmm.bench.simd import Machine
from onnxadmm.errors import InputError
from onnxadmm.progress import Iteration
from onnxadmm.report.layers import ConnectionsLine, LayerLine, ProfileLine, TensorLine
from onnxadmm.units.cost import CostKind

# An interval of the speed-up whose ends are farther apart than this says nothing that one could act upon.
_NOISY: Final = 1.25

#: Whose outputs stand in for labels where there are none, which follows the name of a metric: ``"mse against ..."``.
THE_ORIGINAL: Final = "the original"
THE_TEACHER: Final = "the teacher"
_SHARES: Final = ("accuracy", "agreement", "top-5", "f1", "mean-iou")
_ERRORS: Final = ("mse", "cross-entropy", "bce", "distillation", "mae", "perplexity")

Option = str | int | float | bool | None


@dataclass(frozen=True)
class BudgetLine:
    """One budget: asked and reached.

    Attributes:
        kind: what is counted; for ``"connections"`` the unit is the share of weights that are not zero.
        asked: as the user wrote it, e.g. ``"0.3"`` or ``"20M"``.
        limit: the same as an absolute figure.
        original: what the original model has.
        reached: what the result has.
    """

    kind: Literal[CostKind, "connections"]
    asked: str
    limit: float
    original: float
    reached: float

    @property
    def met(self) -> bool:
        """Whether the result stays within the limit."""
        return self.reached <= self.limit


@dataclass(frozen=True)
class Score:
    """Quality of a model on some data, in the figure that decided.

    Attributes:
        metric: ``"accuracy"`` or, without labels, ``"agreement"`` with the original's classes; another metric by its
            name, or a loss; followed by ``" against the original"`` where its outputs stand in for labels. Where
            another network taught, it is ``"agreement with the teacher"``, or ``" against the teacher"`` follows.
        value: the figure.
        samples: how many samples it was measured on.
    """

    metric: str
    value: float
    samples: int

    @property
    def is_share(self) -> bool:
        """Whether the value is a share in [0, 1] of which more is better."""
        return self._name in _SHARES

    @property
    def more_is_better(self) -> bool:
        """Whether more of it is better: of all but losses and errors."""
        return self._name not in _ERRORS

    @property
    def _name(self) -> str:
        return re.split(" (?:against|with) ", self.metric)[0]


@dataclass(frozen=True)
class Column:
    """One model in figures.

    Attributes:
        model: which model.
        file_bytes: bytes on disk, external data included.
        parameters: elements of its weights.
        nonzero_parameters: those that are not zero.
        nodes: nodes without constants.
        macs: multiply-accumulate operations for one sample, None when not counted.
        heldout: on the held-out part of the training data, None when not measured.
        test: on the test data, None when there are none.
    """

    model: ModelIdentity
    file_bytes: int
    parameters: int
    nonzero_parameters: int
    nodes: int
    macs: int | None
    heldout: Score | None
    test: Score | None

    def __post_init__(self) -> None:
        if min(self.file_bytes, self.parameters, self.nonzero_parameters, self.nodes, self.macs or 0) < 0:
            raise ValueError("a negative size")
        if self.nonzero_parameters > self.parameters:
            raise ValueError(f"{self.nonzero_parameters} non-zero of {self.parameters} parameters")


@dataclass(frozen=True)
class Spread:
    """Milliseconds per run: median, first and third quartile."""

    median_ms: float
    low_ms: float
    high_ms: float


def too_noisy(low: float, high: float) -> bool:
    """Whether an interval of a speed-up includes 1 and is wide: no verdict can be drawn from it."""
    return low <= 1 <= high and high > _NOISY * low


@dataclass(frozen=True)
class LatencyLine:
    """Original and result timed in turns.

    Attributes:
        batch: batch size.
        threads: threads one operator may use.
        rounds: rounds measured.
        before: the original.
        after: the result.
        speedup: median of the ratios within rounds, above 1 when the result is faster.
        speedup_low: lower end of its 95 % bootstrap interval.
        speedup_high: upper end.
    """

    batch: int
    threads: int
    rounds: int
    before: Spread
    after: Spread
    speedup: float
    speedup_low: float
    speedup_high: float

    @property
    def is_noisy(self) -> bool:
        """Whether the interval includes 1 and is wide: no verdict can be drawn from it."""
        return too_noisy(self.speedup_low, self.speedup_high)


@dataclass(frozen=True)
class VerificationLine:
    """Whether the shrunk model computes what the masked original computes.

    Attributes:
        snr_db: power of the outputs over power of the difference, in decibels, of the worst output; infinite when
            they are equal.
        max_abs_error: largest absolute difference of any output element.
        inputs: how many inputs were tried.
        threshold_db: least ``snr_db`` that passes.
        passed: the verdict.
    """

    snr_db: float
    max_abs_error: float
    inputs: int
    threshold_db: float
    passed: bool


@dataclass(frozen=True)
class GroupLine:
    """One group of units.

    Attributes:
        name: of the group.
        layers: nodes that produce its units.
        units_before: units in the original.
        units_after: units in the result.
        locked: why it may not shrink, None when it may.
        feeds: names of the groups that are written by the layers that read this one.
    """

    name: str
    layers: tuple[str, ...]
    units_before: int
    units_after: int
    locked: str | None
    feeds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.units_after <= self.units_before:
            raise ValueError(f"group {self.name}: {self.units_after} of {self.units_before} units left")
        if self.locked is not None and self.units_after != self.units_before:
            raise ValueError(f"group {self.name}: locked, yet {self.units_before} units became {self.units_after}")


@dataclass(frozen=True)
class VariantLine:
    """The result once more, its numbers stored in another way, in a file of its own.

    Attributes:
        name: ``"int8"``: rounded to bytes; ``"fp16"``: weights of 16 bits that are read as 32.
        figures: of it, measured as those of the result are.
        floats: names of what keeps floats of 32 bits: of operators, with ``"fp16"`` of weights.
        latency: itself (``after``) against the result (``before``), timed in the same rounds as the report's latency.
        told: what a reader should know about it, one sentence each; the first says what it gains.
    """

    name: Literal["int8", "fp16"]
    figures: Column
    floats: tuple[str, ...]
    latency: tuple[LatencyLine, ...]
    told: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of its file, beside that of the result."""
        return f"model.{self.name}.onnx"


@dataclass(frozen=True)
class StageTime:
    """How long a stage of the run took, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """Everything about one run.

    Attributes:
        created: date and time in UTC, ISO 8601.
        command: the command or function that ran.
        options: its options as they took effect.
        seed: of every random choice.
        versions: Python and the packages that matter, by name.
        machine: where it ran and where latency was measured.
        before: the original model.
        after: the result.
        budgets: asked and reached.
        latency: one per batch size.
        verification: None when nothing was verified.
        groups: every group, locked ones included.
        simplified: what was done to model and data before pruning, one sentence each.
        warnings: what the user should know, one sentence each.
        history: every iteration of training.
        stages: time per stage, in the order they ran.
        inputs, outputs: what the result must be fed, and what it gives.
        layers: every layer of the model as it was analysed, in the order of the graph.
        profile: how the times of the layers were measured, None when they were not.
        connections: what was pruned of single connections, None when they were left alone.
        variants: the result in other forms, each in a file beside it.
        forecast: time per stage as it was expected before the training; empty where nothing was foreseen.

    Examples:
        ```python
        report = oa.compress("model.onnx", calibrate=images, budget={"macs": 0.6}, bench=False).report
        print(report.before.parameters, report.after.parameters, report.verification.snr_db)
        for line in report.layers:
            print(line)
        ```
    """

    created: str
    command: str
    options: Mapping[str, Option]
    seed: int
    versions: Mapping[str, str]
    machine: Machine
    before: Column
    after: Column
    budgets: tuple[BudgetLine, ...]
    latency: tuple[LatencyLine, ...]
    verification: VerificationLine | None
    groups: tuple[GroupLine, ...]
    simplified: tuple[str, ...]
    warnings: tuple[str, ...]
    history: tuple[Iteration, ...]
    stages: tuple[StageTime, ...]
    inputs: tuple[TensorLine, ...] = ()
    outputs: tuple[TensorLine, ...] = ()
    layers: tuple[LayerLine, ...] = ()
    profile: ProfileLine | None = None
    connections: ConnectionsLine | None = None
    variants: tuple[VariantLine, ...] = ()
    forecast: tuple[StageTime, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether a network was trained; behind a calibration nothing is where there are no epochs of retraining."""
        return not self.options.get("effort") or self.options.get("retrain_epochs") != 0

    def to_dict(self) -> dict[str, Any]:
        """Return all of it but the iterations in dicts, lists, texts, numbers and None, as ``report.json`` holds it.

        Examples:
            ```python
            largest = max(result.to_dict()["layers"], key=lambda layer: layer["macs_before"])
            ```
        """
        from onnxadmm.report.reading import to_document  # which reads reports, and imports this module

        return to_document(self)

    def to_dataframe(self) -> Any:
        """Return the layers as a ``pandas.DataFrame``: a row for each, in the order of the graph.

        Its columns are the fields of ``LayerLine``: ``name``, ``operator``, ``units_before``, ``macs_after``...

        Raises:
            InputError: pandas is not installed; ``to_dict()["layers"]`` needs nothing.

        Examples:
            ```python
            result.to_dataframe().sort_values("macs_after", ascending=False).head()
            ```
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise InputError(
                "to_dataframe",
                expected="pandas to be installed",
                found=str(error),
                way_out='install it with `pip install pandas`, or take to_dict()["layers"]',
            ) from error
        return pandas.DataFrame(
            [asdict(line) for line in self.layers], columns=[item.name for item in fields(LayerLine)]
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the figures before and after, the proof, and warnings."""
        from onnxadmm.report.notebook import table_of_report  # which imports this module

        return table_of_report(self)

    def __repr__(self) -> str:
        before, after, proof = self.before, self.after, self.verification
        told = [f"{before.model.name!r} became {after.model.name!r}"]
        told.append(f"parameters {before.parameters:,} to {after.parameters:,}")
        if before.macs is not None and after.macs is not None:
            told.append(f"MACs {before.macs:,} to {after.macs:,}")
        for data, was, now in (("held-out", before.heldout, after.heldout), ("test", before.test, after.test)):
            if was is not None and now is not None:
                told.append(f"{data} {now.metric} {was.value:.4f} to {now.value:.4f}")
        verdict = "not verified" if proof is None else "verified" if proof.passed else "verification failed"
        return f"{type(self).__name__}({', '.join([*told, verdict])})"


def latency_lines(latencies: Latencies, *, before: int = 0, after: int = 1) -> tuple[LatencyLine, ...]:
    """Lines for a report from a comparison.

    Args:
        before, after: places of two models among those that were timed; the latter was compared with the former.
    """
    lines = []
    for result in latencies.results:
        was, is_now = (
            Spread(timing.median_ms, timing.low_ms, timing.high_ms)
            for timing in (result.timings[before], result.timings[after])
        )
        speedup = result.speedups[after - 1]
        lines.append(
            LatencyLine(
                batch=result.batch,
                threads=result.threads,
                rounds=result.rounds,
                before=was,
                after=is_now,
                speedup=speedup.ratio,
                speedup_low=speedup.low,
                speedup_high=speedup.high,
            )
        )
    return tuple(lines)
