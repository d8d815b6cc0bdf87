"""report.md: the report as a page of Markdown."""

from collections.abc import Iterator, Sequence

from onnxadmm.report.escaping import for_markdown
from onnxadmm.report.findings import find_notes
from onnxadmm.report.report import Report
from onnxadmm.report.rows import comparison_rows, residual_words, verification_sentence
from onnxadmm.report.words import amount, decibels, duration, large


def to_markdown(report: Report) -> str:
    """The whole report as Markdown; ends with a newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    before, after = report.before.model, report.after.model
    yield f"# {for_markdown(before.name)}, compressed"
    yield ""
    yield from _table(
        ["", "before", "after", "change"],
        [[row.label, row.before, row.after, row.change] for row in comparison_rows(report)],
        numbers_from=1,
    )
    yield ""
    yield verification_sentence(report)
    if report.latency:
        yield ""
        yield (
            "Latency: milliseconds per run, median and quartiles, both models timed in turns; the range of the "
            "speed-up is a 95 % bootstrap interval of the median ratio."
        )
    yield from _list("Warnings", report.warnings)
    yield from _list("Notes", find_notes(report.groups, options=report.options, held_out=report.after.heldout))
    yield from _budgets(report)
    yield from _groups(report)
    yield from _list("Done before pruning", report.simplified)
    yield from _history(report)
    yield from _run(report)
    yield ""
    yield f"`{after.sha256}` {for_markdown(after.name)}"


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
    if not report.history:
        return
    yield from _section("Iterations")
    header = ["stage", "iteration", "epoch", "loss", "held-out", "units", "cost", "budget"]
    header += ["primal", "dual", "rho", "primal (connections)", "dual (connections)", "rho (connections)"]
    yield from _table(
        header,
        [
            [
                row.stage,
                str(row.iteration),
                f"{row.epoch:.2f}",
                f"{row.loss:.4f}",
                "-" if row.heldout is None else f"{row.heldout:.4f}",
                "-" if row.kept_units is None else f"{row.kept_units:,}",
                "-" if row.cost is None else large(round(row.cost)),
                "-" if row.budget is None else large(round(row.budget)),
                *residual_words(row.neurons),
                *residual_words(row.connections),
            ]
            for row in report.history
        ],
        numbers_from=1,
    )


def _run(report: Report) -> Iterator[str]:
    before, after, machine = report.before.model, report.after.model, report.machine
    yield from _section("Run")
    opset = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(after.opset.items()))
    facts = [
        ("command", report.command),
        ("options", ", ".join(f"{name}={value}" for name, value in sorted(report.options.items()))),
        ("seed", str(report.seed)),
        ("date", report.created),
        ("original", f"{before.name}, sha256 {before.sha256}"),
        ("result", f"{after.name}, opset {opset}, IR version {after.ir_version}"),
        ("machine", f"{machine.cpu}, {machine.threads} threads, {machine.simd}, {machine.platform}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))),
        ("verification", _verification(report)),
        ("time", ", ".join(f"{stage.name} {duration(stage.seconds)}" for stage in report.stages)),
    ]
    yield from _table(["", ""], [[name, value] for name, value in facts if value], numbers_from=2)


def _verification(report: Report) -> str:
    line = report.verification
    if line is None:
        return "none"
    return f"{decibels(line.snr_db)}, threshold {line.threshold_db:g} dB, max abs error {line.max_abs_error:.3g}"


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
