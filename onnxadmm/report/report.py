"""The report of a compression: what was asked, what came out, and what proves it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from onnxadmm.bench.identity import ModelIdentity
from onnxadmm.bench.latency import Latencies
from onnxadmm.bench.simd import Machine
from onnxadmm.errors import InputError
from onnxadmm.progress import Iteration
from onnxadmm.report.codec import MismatchError, decode, encode
from onnxadmm.units.cost import CostKind

SCHEMA: Final = "onnxadmm.report/1"

NAME: Final = "report.json"

# An interval of the speed-up whose ends are farther apart than this says nothing that one could act upon.
_NOISY: Final = 1.25

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
    """Quality of a model on some data.

    Attributes:
        metric: ``"accuracy"`` or, without labels, ``"agreement"`` with the original's classes (shares in [0, 1], more
            is better), or a loss (less is better): against the labels, or without any against the original's outputs.
        value: the figure.
        samples: how many samples it was measured on.
    """

    metric: Literal["accuracy", "agreement", "mse", "mse against the original", "cross-entropy", "bce", "distillation"]
    value: float
    samples: int

    @property
    def is_share(self) -> bool:
        """Whether the value is a share in [0, 1] of which more is better."""
        return self.metric in ("accuracy", "agreement")


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
    """

    name: str
    layers: tuple[str, ...]
    units_before: int
    units_after: int
    locked: str | None

    def __post_init__(self) -> None:
        if not 0 <= self.units_after <= self.units_before:
            raise ValueError(f"group {self.name}: {self.units_after} of {self.units_before} units left")
        if self.locked is not None and self.units_after != self.units_before:
            raise ValueError(f"group {self.name}: locked, yet {self.units_before} units became {self.units_after}")


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


def latency_lines(latencies: Latencies) -> tuple[LatencyLine, ...]:
    """Lines for a report from a comparison of exactly two models, the original first.

    Raises:
        ValueError: another number of models was compared (a defect).
    """
    lines = []
    for result in latencies.results:
        before, after = (Spread(timing.median_ms, timing.low_ms, timing.high_ms) for timing in result.timings)
        (speedup,) = result.speedups
        lines.append(
            LatencyLine(
                batch=result.batch,
                threads=result.threads,
                rounds=result.rounds,
                before=before,
                after=after,
                speedup=speedup.ratio,
                speedup_low=speedup.low,
                speedup_high=speedup.high,
            )
        )
    return tuple(lines)


def to_document(report: Report) -> dict[str, Any]:
    """The report as JSON objects, its schema first."""
    return {"schema": SCHEMA, **encode(report)}


def from_document(document: object, *, source: str) -> Report:
    """Read a report from JSON objects.

    Args:
        document: what ``json`` read.
        source: how messages call it, e.g. its path.

    Raises:
        InputError: another schema, or a field that is missing, unknown or of another type.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema != SCHEMA:
        raise InputError(
            source,
            expected=f"a report of schema {SCHEMA!r}",
            found=f"schema {schema!r}" if schema is not None else "a document without a schema",
            way_out="give a report.json of this version, or make it again",
        )
    try:
        return decode(Report, {key: value for key, value in document.items() if key != "schema"})
    except MismatchError as error:
        raise InputError(
            f"{source}, {error.where or 'the document'}",
            expected=error.expected,
            found=error.found,
            way_out="give the file as it was written, or make it again",
        ) from error


def read_report(path: str | Path) -> Report:
    """Read ``report.json``, the one of a run's folder where a folder is given.

    Raises:
        InputError: the file cannot be read, is not JSON, or is not a report.
    """
    if Path(path).is_dir():
        file = Path(path) / NAME
        if not file.exists():
            unfinished = (Path(path) / "unfinished").exists()
            raise InputError(
                str(path),
                expected=f"a folder with {NAME}",
                found="an unfinished run" if unfinished else "none",
                way_out="go on with --resume" if unfinished else "give the --out folder of a run",
            )
        path = file
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(str(path), expected="a readable file", found=reason, way_out="check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            str(path),
            expected="JSON",
            found=f"something else ({error})",
            way_out="give the report.json of an output folder",
        ) from error
    return from_document(document, source=str(path))
