"""Tables for the console: whole in 100 columns, with less in them or as lists in fewer."""

from rich.console import Group, RenderableType
from rich.text import Text

from onnxadmm.bench.latency import Latencies, Speedup
from onnxadmm.graph.stated import in_words
from onnxadmm.report.escaping import shown
from onnxadmm.report.findings import find_notes
from onnxadmm.report.fitting import Fitting, Rows
from onnxadmm.report.report import Report, too_noisy
from onnxadmm.report.rows import comparison_rows, comparison_titles, verification_sentence
from onnxadmm.report.tradeoff import TradeOff, rows_of
from onnxadmm.report.words import amount, duration, milliseconds, plural, times


def report_view(report: Report) -> RenderableType:
    """The summary at the end of a run: before and after, budgets, groups, the verification line, warnings, notes."""
    passed = report.verification is not None and report.verification.passed
    parts: list[RenderableType] = [comparison_table(report)]
    if report.groups:  # else nothing was cut that could be verified
        parts.append(Text(verification_sentence(report), style="green" if passed else "bold red"))
    for line in report.budgets:
        verdict = "met" if line.met else "NOT met"
        limit, reached = amount(line.kind, line.limit), amount(line.kind, line.reached)
        budget = f"Budget --{line.kind} {line.asked}: {limit} allowed, {reached} left, {verdict}."
        parts.append(shown(budget, style="" if line.met else "bold red"))
    parts += [shown(f"Warning: {sentence}", style="yellow") for sentence in report.warnings]
    parts += [
        shown(f"Note: {sentence}")
        for sentence in find_notes(
            report.groups, options=report.options, held_out=report.after.heldout, variants=report.variants
        )
    ]
    if report.stages:
        parts.append(Text(f"Took {duration(sum(stage.seconds for stage in report.stages))}.", style="dim"))
    return Group(*parts)


def sweep_view(found: TradeOff) -> RenderableType:
    """The points of a sweep side by side, a star at those that pay."""
    titles, rows = rows_of(found)
    return Group(
        Fitting(Rows(titles, [tuple(row) for row in rows])),
        shown("* no other point costs no more and loses less; lost: points on held-out data", style="dim"),
    )


def comparison_table(report: Report) -> RenderableType:
    """Before, after, change and the result in other forms, one row per figure.

    Where that is too wide it is narrower without the spread of latencies, then a list.
    """
    rows = comparison_rows(report)
    titles = comparison_titles(report)
    whole = [(row.label, row.before, row.after, row.change, *row.others) for row in rows]
    shorter = [
        (row.label, *map(_without_spread, (row.before, row.after)), row.change, *map(_without_spread, row.others))
        for row in rows
    ]
    return Fitting(Rows(titles, whole, folds=()), Rows(titles, shorter, folds=()))


def latency_table(latencies: Latencies) -> RenderableType:
    """Models timed side by side: one row per model and batch size."""
    rows = []
    for result in latencies.results:
        speedups = dict(enumerate(result.speedups, start=1))
        for index, timing in enumerate(result.timings):
            speedup = speedups.get(index)
            rows.append(
                (
                    timing.name,
                    str(result.batch),
                    str(result.threads),
                    milliseconds(timing.median_ms),
                    f"{milliseconds(timing.low_ms)}-{milliseconds(timing.high_ms)}",
                    _speed_up(speedup),
                    f"{speedup.low:.2f} to {speedup.high:.2f}" if speedup else "",
                )
            )
    titles = ("model", "batch", "threads", "median ms", "quartiles", "speed-up", "95 % interval")
    table = Fitting(Rows(titles, rows))
    rounds = ", ".join(f"{plural(result.rounds, 'round')} at batch {result.batch}" for result in latencies.results)
    sizes = f" Inputs {in_words(latencies.sizes)}." if latencies.sizes else ""
    parts: list[RenderableType] = [table, shown(f"Timed in turns: {rounds}.{sizes}", style="dim")]
    parts += [shown(f"Warning: {sentence}", style="yellow") for sentence in latencies.skipped]
    return Group(*parts)


def _speed_up(speedup: Speedup | None) -> str:
    if speedup is None:
        return ""
    return "too noisy" if too_noisy(speedup.low, speedup.high) else times(speedup.ratio)


def _without_spread(figure: str) -> str:
    return figure.partition(" (")[0]
