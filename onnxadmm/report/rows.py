"""The comparison both renderings show: one row per figure, before and after."""

from collections.abc import Iterator
from dataclasses import dataclass

from onnxadmm.progress import Residuals
from onnxadmm.report.report import LatencyLine, Report, Score, Spread
from onnxadmm.report.words import decibels, large, milliseconds, percent, plural, size_in_bytes, times


@dataclass(frozen=True)
class Row:
    """One figure of the two models, in words; ``change`` says how much better the result is."""

    label: str
    before: str
    after: str
    change: str


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


def residual_words(residuals: Residuals | None) -> tuple[str, str, str]:
    """Primal, dual and rho of one splitting, ``"-"`` where there is none."""
    if residuals is None:
        return "-", "-", "-"
    return f"{residuals.primal:.3g}", f"{residuals.dual:.3g}", f"{residuals.rho:.3g}"


def _rows(report: Report) -> Iterator[Row]:
    before, after = report.before, report.after
    yield Row(
        "File size",
        size_in_bytes(before.file_bytes),
        size_in_bytes(after.file_bytes),
        _fewer(before.file_bytes, after.file_bytes, "smaller", "larger"),
    )
    yield _count("Parameters", before.parameters, after.parameters)
    yield _count("Non-zero parameters", before.nonzero_parameters, after.nonzero_parameters)
    if before.macs is not None and after.macs is not None:
        sizes = report.options.get("input_shape")
        yield _count(f"MACs per sample of {sizes}" if sizes else "MACs per sample", before.macs, after.macs)
    yield _count("Nodes", before.nodes, after.nodes)
    yield from _quality("Held-out", before.heldout, after.heldout)
    yield from _quality("Test", before.test, after.test)
    for line in report.latency:
        yield _latency(line)


def _count(label: str, before: int, after: int) -> Row:
    return Row(label, large(before), large(after), _fewer(before, after, "fewer", "more"))


def _fewer(before: int, after: int, less: str, more: str) -> str:
    if before == after:
        return "same"
    if after == 0 or before == 0:
        return "-"
    return f"{times(before / after)} {less}" if after < before else f"{times(after / before)} {more}"


def _quality(data: str, before: Score | None, after: Score | None) -> Iterator[Row]:
    some = before or after
    if some is None:
        return
    change = ""
    if before is not None and after is not None:
        difference = after.value - before.value
        change = f"{100 * difference:+.2f} points" if some.is_share else f"{difference:+.4g}"
    yield Row(f"{data} {some.metric}", _score(before), _score(after), change)


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
        change = f"{times(1 / ratio)} slower ({1 / high:.2f}-{1 / low:.2f})"
    label = f"ms at batch {line.batch}, {plural(line.threads, 'thread')}"
    return Row(label, _spread(line.before), _spread(line.after), change)


def _spread(spread: Spread) -> str:
    return f"{milliseconds(spread.median_ms)} ({milliseconds(spread.low_ms)}-{milliseconds(spread.high_ms)})"
