"""Tables for the console, readable in 100 columns."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxadmm.bench.latency import Latencies
from onnxadmm.graph.stated import in_words
from onnxadmm.report.report import Report
from onnxadmm.report.rows import comparison_rows, verification_sentence
from onnxadmm.report.words import duration, large, milliseconds, plural, times


def report_view(report: Report) -> RenderableType:
    """The summary at the end of a run: before and after, budgets, groups, the verification line, warnings."""
    passed = report.verification is not None and report.verification.passed
    parts: list[RenderableType] = [
        comparison_table(report),
        Text(verification_sentence(report), style="green" if passed else "bold red"),
    ]
    for line in report.budgets:
        verdict = "met" if line.met else "NOT met"
        budget = (
            f"Budget --{line.kind} {line.asked}: {large(line.limit)} allowed, {large(line.reached)} left, {verdict}."
        )
        parts.append(Text(budget, style="" if line.met else "bold red"))
    parts += [Text(f"Warning: {sentence}", style="yellow") for sentence in report.warnings]
    if report.stages:
        parts.append(Text(f"Took {duration(sum(stage.seconds for stage in report.stages))}.", style="dim"))
    return Group(*parts)


def comparison_table(report: Report) -> Table:
    """Before, after and change, one row per figure."""
    table = _table()
    table.add_column("")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in comparison_rows(report):
        table.add_row(row.label, row.before, row.after, row.change)
    return table


def latency_table(latencies: Latencies) -> RenderableType:
    """Models timed side by side: one row per model and batch size."""
    table = _table()
    table.add_column("model", overflow="fold")
    for title in ("batch", "threads", "median ms", "quartiles", "speed-up", "95 % interval"):
        table.add_column(title, justify="right")
    for result in latencies.results:
        speedups = dict(enumerate(result.speedups, start=1))
        for index, timing in enumerate(result.timings):
            speedup = speedups.get(index)
            table.add_row(
                Text(timing.name),
                str(result.batch),
                str(result.threads),
                milliseconds(timing.median_ms),
                f"{milliseconds(timing.low_ms)}-{milliseconds(timing.high_ms)}",
                times(speedup.ratio) if speedup else "",
                f"{speedup.low:.2f} to {speedup.high:.2f}" if speedup else "",
            )
        table.add_section()
    rounds = ", ".join(f"{plural(result.rounds, 'round')} at batch {result.batch}" for result in latencies.results)
    sizes = f" Inputs {in_words(latencies.sizes)}." if latencies.sizes else ""
    parts: list[RenderableType] = [table, Text(f"Timed in turns: {rounds}.{sizes}", style="dim")]
    parts += [Text(f"Warning: {sentence}", style="yellow") for sentence in latencies.skipped]
    return Group(*parts)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
