"""report.md: the report as a page of Markdown."""

from collections.abc import Iterator, Sequence

from onnxadmm.progress import Iteration
from onnxadmm.report.escaping import for_markdown
from onnxadmm.report.findings import find_notes
from onnxadmm.report.report import Report
from onnxadmm.report.rows import comparison_rows, comparison_titles, run_facts, verification_sentence
from onnxadmm.report.words import amount


def to_markdown(report: Report) -> str:
    """The whole report as Markdown; ends with a newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    before = report.before.model
    yield f"# {for_markdown(before.name)}, compressed"
    yield ""
    yield from _table(
        comparison_titles(report),
        [[row.label, row.before, row.after, row.change, *row.others] for row in comparison_rows(report)],
        numbers_from=1,
    )
    yield ""
    yield verification_sentence(report)
    if report.latency:
        yield ""
        yield (
            "Latency: milliseconds per run, median and quartiles, the models timed in turns; the range of the "
            "speed-up is a 95 % bootstrap interval of the median ratio."
        )
    yield from _list("Warnings", report.warnings)
    notes = find_notes(report.groups, options=report.options, held_out=report.after.heldout, variants=report.variants)
    yield from _list("Notes", notes)
    yield from _budgets(report)
    yield from _groups(report)
    yield from _list("Done before pruning", report.simplified)
    yield from _history(report)
    yield from _run(report)


def _budgets(report: Report) -> Iterator[str]:
    if not report.budgets:
        return
    yield from _section("Budget")
    yield from _table(
        ["budget", "asked", "limit", "original", "reached", "met"],
        [
            [
                line.kind,
                line.asked,
                amount(line.kind, line.limit),
                amount(line.kind, line.original),
                amount(line.kind, line.reached),
                "yes" if line.met else "no",
            ]
            for line in report.budgets
        ],
        numbers_from=1,
    )


def _groups(report: Report) -> Iterator[str]:
    free = [group for group in report.groups if group.locked is None]
    locked = [group for group in report.groups if group.locked is not None]
    if free:
        yield from _section("Groups")
        yield from _table(
            ["group", "layers", "before", "after"],
            [[g.name, ", ".join(g.layers), f"{g.units_before:,}", f"{g.units_after:,}"] for g in free],
            numbers_from=2,
        )
    if locked:
        yield from _section("Locked groups")
        yield from _table(
            ["group", "layers", "units", "why"],
            [[g.name, ", ".join(g.layers), f"{g.units_before:,}", g.locked or ""] for g in locked],
            numbers_from=4,
        )


def _history(report: Report) -> Iterator[str]:
    """A line for each training: every iteration stands in ``history.jsonl``."""
    if not report.history:
        return
    yield from _section("Trainings")
    stages: dict[str, list[Iteration]] = {}
    for row in report.history:
        stages.setdefault(row.stage, []).append(row)
    yield from _table(
        ["stage", "iterations", "epochs", "first loss", "last loss", "last held-out"],
        [
            [
                stage,
                f"{len(rows):,}",
                f"{rows[-1].epoch:.2f}",
                f"{rows[0].loss:.4f}",
                f"{rows[-1].loss:.4f}",
                "-" if rows[-1].heldout is None else f"{rows[-1].heldout:.4f}",
            ]
            for stage, rows in stages.items()
        ],
        numbers_from=1,
    )


def _run(report: Report) -> Iterator[str]:
    yield from _section("Run")
    yield from _table(["", ""], [[name, value] for name, value in run_facts(report)], numbers_from=2)


def _section(title: str) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""


def _list(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield from _section(title)
        yield from (f"- {for_markdown(sentence)}" for sentence in sentences)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int) -> Iterator[str]:
    """A Markdown table; columns from ``numbers_from`` on are aligned to the right."""
    yield _row(header)
    yield "|" + "|".join("---" if column < numbers_from else "---:" for column in range(len(header))) + "|"
    for row in rows:
        yield _row([for_markdown(cell) for cell in row])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
