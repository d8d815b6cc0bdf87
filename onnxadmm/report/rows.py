"""The comparison both renderings show: one row per figure, before and after."""

import math
from collections.abc import Iterator, Sequence
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
        others: of the result in other forms, in the order of ``Report.variants``.
    """

    label: str
    before: str
    after: str
    change: str
    kind: Literal["count", "quality", "latency"] = "count"
    headline: bool = True
    worse: bool = False
    others: tuple[str, ...] = ()


def comparison_titles(report: Report) -> tuple[str, ...]:
    """What the columns of the comparison are called, that of the labels first."""
    return ("", "before", "after", "change", *(variant.name for variant in report.variants))


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
        ("expected", ", ".join(f"{stage.name} {duration(stage.seconds)}" for stage in report.forecast)),
    )
    return tuple((name, value) for name, value in facts if value)


def _verification(report: Report) -> str:
    line = report.verification
    if line is None:
        return "none"
    return f"{decibels(line.snr_db)}, threshold {line.threshold_db:g} dB, max abs error {line.max_abs_error:.3g}"


def _rows(report: Report) -> Iterator[Row]:
    before, after = report.before, report.after
    columns = tuple(variant.figures for variant in report.variants)
    yield Row(
        "File size",
        size_in_bytes(before.file_bytes),
        size_in_bytes(after.file_bytes),
        fewer(before.file_bytes, after.file_bytes, "smaller", "larger"),
        worse=after.file_bytes > before.file_bytes,
        others=tuple(size_in_bytes(each.file_bytes) for each in columns),
    )
    yield _count("Parameters", before.parameters, after.parameters, [each.parameters for each in columns])
    zeros = after.nonzero_parameters < after.parameters
    alive = [each.nonzero_parameters for each in columns]
    yield _count("Non-zero parameters", before.nonzero_parameters, after.nonzero_parameters, alive, headline=zeros)
    if before.macs is not None and after.macs is not None:
        sizes = report.options.get("input_shape")
        label = f"MACs per sample of {sizes}" if sizes else "MACs per sample"
        yield _count(label, before.macs, after.macs, [each.macs for each in columns])
    yield _count("Nodes", before.nodes, after.nodes, [each.nodes for each in columns], headline=False)
    held_out, tested = [each.heldout for each in columns], [each.test for each in columns]
    yield from _quality("Held-out", before.heldout, after.heldout, held_out, headline=after.test is None)
    yield from _quality("Test", before.test, after.test, tested)
    for line in report.latency:
        yield _latency(line, [variant.latency for variant in report.variants])


def _count(label: str, before: int, after: int, others: Sequence[int | None], *, headline: bool = True) -> Row:
    told = tuple("-" if other is None else large(other) for other in others)
    change = fewer(before, after, "fewer", "more")
    return Row(label, large(before), large(after), change, headline=headline, worse=after > before, others=told)


def fewer(before: int, after: int, less: str, more: str) -> str:
    """How two counts compare: ``"3.51x smaller"``, given the words for less and for more."""
    if before == after:
        return "same"
    if after == 0 or before == 0:
        return "-"
    return f"{times(before / after)} {less}" if after < before else f"{times(after / before)} {more}"


def _quality(
    data: str, before: Score | None, after: Score | None, others: Sequence[Score | None], *, headline: bool = True
) -> Iterator[Row]:
    some = before or after
    if some is None:
        return
    change, worse = "", False
    if before is not None and after is not None:
        difference = after.value - before.value
        change = f"{100 * difference:+.2f} points" if some.is_share else f"{difference:+.4g}"
        lost = -difference if some.more_is_better else difference
        worse = lost > NOTABLE_DROP * (1 if some.is_share else abs(before.value))
    was, now, *told = map(score_in_words, (before, after, *others))
    yield Row(f"{data} {some.metric}", was, now, change, "quality", headline, worse, tuple(told))


def score_in_words(score: Score | None) -> str:
    """A figure of quality as people read it: a share in percent, a dash where there is none."""
    if score is None:
        return "-"
    return percent(score.value) if score.is_share else f"{score.value:.4g}"


def _latency(line: LatencyLine, others: Sequence[Sequence[LatencyLine]]) -> Row:
    label = f"ms at batch {line.batch}, {plural(line.threads, 'thread')}"
    worse = line.speedup < 1 and not line.is_noisy
    told = tuple(next((_spread(own.after) for own in lines if own.batch == line.batch), "-") for lines in others)
    change = speed_in_words(line)
    return Row(label, _spread(line.before), _spread(line.after), change, "latency", worse=worse, others=told)


def speed_in_words(line: LatencyLine) -> str:
    """How much faster or slower the second of two models is, with the interval: ``"1.12x faster (1.08-1.15)"``."""
    ratio, low, high = line.speedup, line.speedup_low, line.speedup_high
    if line.is_noisy:
        return f"too noisy to tell ({low:.2f}-{high:.2f})"
    if ratio >= 1:
        return f"{times(ratio)} faster ({low:.2f}-{high:.2f})"
    # No measurement gives a ratio of zero, but a file may hold one.
    slower, least, most = (1 / each if each else math.inf for each in (ratio, high, low))
    return f"{times(slower)} slower ({least:.2f}-{most:.2f})"


def _spread(spread: Spread) -> str:
    return f"{milliseconds(spread.median_ms)} ({milliseconds(spread.low_ms)}-{milliseconds(spread.high_ms)})"
