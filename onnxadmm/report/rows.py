"""The comparison both renderings show: one row per figure, before and after."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from onnxadmm.report.findings import NOTABLE_DROP
from onnxadmm.report.report import LatencyLine, Report, Score, Spread
from onnxadmm.report.words import decibels, duration, large, milliseconds, percent, plural, size_in_bytes, times


@dataclass(frozen=True)
class Row:
    """One figure of the two models, in words.

    Attributes:
        label: what is counted or measured.
        before, after: of both models; a latency with its quartiles in brackets.
        change: how much better the result is; a speed-up with its interval in brackets.
        kind: what sort of figure it is.
        headline: whether it is among the first things that one wants to know.
        worse: whether the result is clearly worse in it.
    """

    label: str
    before: str
    after: str
    change: str
    kind: Literal["count", "quality", "latency"] = "count"
    headline: bool = True
    worse: bool = False


def comparison_rows(report: Report) -> tuple[Row, ...]:
    """Size, parameters, MACs, quality and latency, before and after."""
    return tuple(_rows(report))


def verification_sentence(report: Report) -> str:
    """What the comparison of masked original and result gave."""
    line = report.verification
    if line is None:
        return "Not verified."
    verdict = "Verified" if line.passed else "VERIFICATION FAILED"
    within = " within rounding" if line.passed and line.snr_db < line.threshold_db else ""
    return (
        f"{verdict}: masked original and result agree{within} on {plural(line.inputs, 'input')}: "
        f"{decibels(line.snr_db)} (at least {line.threshold_db:.0f} dB asked), "
        f"largest absolute error {line.max_abs_error:.2g}."
    )


def run_facts(report: Report) -> tuple[tuple[str, str], ...]:
    """What was run, of what, where and for how long: name and value of each."""
    before, after, machine = report.before.model, report.after.model, report.machine
    opset = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(after.opset.items()))
    facts = (
        ("command", report.command),
        ("options", ", ".join(f"{name}={value}" for name, value in sorted(report.options.items()))),
        ("seed", str(report.seed)),
        ("date", report.created),
        ("original", f"{before.name}, sha256 {before.sha256}"),
        ("result", f"{after.name}, sha256 {after.sha256}, opset {opset}, IR version {after.ir_version}"),
        ("machine", f"{machine.cpu}, {machine.threads} threads, {machine.simd}, {machine.platform}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))),
        ("verification", _verification(report)),
        ("time", ", ".join(f"{stage.name} {duration(stage.seconds)}" for stage in report.stages)),
    )
    return tuple((name, value) for name, value in facts if value)


def _verification(report: Report) -> str:
    line = report.verification
    if line is None:
        return "none"
    return f"{decibels(line.snr_db)}, threshold {line.threshold_db:g} dB, max abs error {line.max_abs_error:.3g}"


def _rows(report: Report) -> Iterator[Row]:
    before, after = report.before, report.after
    yield Row(
        "File size",
        size_in_bytes(before.file_bytes),
        size_in_bytes(after.file_bytes),
        _fewer(before.file_bytes, after.file_bytes, "smaller", "larger"),
        worse=after.file_bytes > before.file_bytes,
    )
    yield _count("Parameters", before.parameters, after.parameters)
    zeros = after.nonzero_parameters < after.parameters
    yield _count("Non-zero parameters", before.nonzero_parameters, after.nonzero_parameters, headline=zeros)
    if before.macs is not None and after.macs is not None:
        sizes = report.options.get("input_shape")
        yield _count(f"MACs per sample of {sizes}" if sizes else "MACs per sample", before.macs, after.macs)
    yield _count("Nodes", before.nodes, after.nodes, headline=False)
    yield from _quality("Held-out", before.heldout, after.heldout, headline=after.test is None)
    yield from _quality("Test", before.test, after.test)
    for line in report.latency:
        yield _latency(line)


def _count(label: str, before: int, after: int, *, headline: bool = True) -> Row:
    change = _fewer(before, after, "fewer", "more")
    return Row(label, large(before), large(after), change, headline=headline, worse=after > before)


def _fewer(before: int, after: int, less: str, more: str) -> str:
    if before == after:
        return "same"
    if after == 0 or before == 0:
        return "-"
    return f"{times(before / after)} {less}" if after < before else f"{times(after / before)} {more}"


def _quality(data: str, before: Score | None, after: Score | None, *, headline: bool = True) -> Iterator[Row]:
    some = before or after
    if some is None:
        return
    change, worse = "", False
    if before is not None and after is not None:
        difference = after.value - before.value
        change = f"{100 * difference:+.2f} points" if some.is_share else f"{difference:+.4g}"
        lost = -difference if some.more_is_better else difference
        worse = lost > NOTABLE_DROP * (1 if some.is_share else abs(before.value))
    yield Row(f"{data} {some.metric}", _score(before), _score(after), change, "quality", headline, worse)


def _score(score: Score | None) -> str:
    if score is None:
        return "-"
    return percent(score.value) if score.is_share else f"{score.value:.4g}"


def _latency(line: LatencyLine) -> Row:
    ratio, low, high = line.speedup, line.speedup_low, line.speedup_high
    if line.is_noisy:
        change = f"too noisy to tell ({low:.2f}-{high:.2f})"
    elif ratio >= 1:
        change = f"{times(ratio)} faster ({low:.2f}-{high:.2f})"
    else:
        # No measurement gives a ratio of zero, but a file may hold one.
        slower, least, most = (1 / each if each else math.inf for each in (ratio, high, low))
        change = f"{times(slower)} slower ({least:.2f}-{most:.2f})"
    label = f"ms at batch {line.batch}, {plural(line.threads, 'thread')}"
    worse = ratio < 1 and not line.is_noisy
    return Row(label, _spread(line.before), _spread(line.after), change, "latency", worse=worse)


def _spread(spread: Spread) -> str:
    return f"{milliseconds(spread.median_ms)} ({milliseconds(spread.low_ms)}-{milliseconds(spread.high_ms)})"
