"""A report as a notebook shows it: a short table, with its style in it and nothing that runs."""

from typing import Final

from onnxadmm.report.escaping import for_markup
from onnxadmm.report.report import Report
from onnxadmm.report.rows import Row, comparison_rows, comparison_titles, verification_sentence

# Between those of the page for bright and for dark paper: a notebook may have either.
_GOOD: Final = "color:#2e8b57"
_BAD: Final = "color:#d0533f"
_NUMBER: Final = "padding:.2em .8em;text-align:right;border-bottom:1px solid #8884"
_LABEL: Final = "padding:.2em .8em .2em 0;text-align:left;font-weight:normal;border-bottom:1px solid #8884"
_MOST_WARNINGS: Final = 3


def table_of_report(report: Report) -> str:
    """Return HTML without scripts and addresses: the headline figures, the verification, and the first warnings."""
    titles = "".join(
        f'<th scope="col" style="{_NUMBER if number else _LABEL}">{for_markup(title)}</th>'
        for number, title in enumerate((report.before.model.name, *comparison_titles(report)[1:]))
    )
    rows = "".join(_row(row) for row in comparison_rows(report) if row.headline)
    lines = []
    if report.verification is not None:
        lines.append(_line(verification_sentence(report), _GOOD if report.verification.passed else _BAD))
    lines += [_line(f"Warning: {sentence}", _BAD) for sentence in report.warnings[:_MOST_WARNINGS]]
    if len(report.warnings) > _MOST_WARNINGS:
        lines.append(_line(f"{len(report.warnings) - _MOST_WARNINGS} more in .warnings", _BAD))
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums"
    table = f'<table style="{style}"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>'
    return f"<div>{table}{''.join(lines)}</div>"


def _row(row: Row) -> str:
    last = f"{_NUMBER};{_BAD}" if row.worse else _NUMBER
    others = ((text, _NUMBER) for text in row.others)
    figures = ((row.before, _NUMBER), (row.after, _NUMBER), (row.change, last), *others)
    cells = "".join(f'<td style="{style}">{for_markup(text)}</td>' for text, style in figures)
    return f'<tr><th scope="row" style="{_LABEL}">{for_markup(row.label)}</th>{cells}</tr>'


def _line(sentence: str, colour: str) -> str:
    return f'<div style="margin:.3em 0;{colour}">{for_markup(sentence)}</div>'
