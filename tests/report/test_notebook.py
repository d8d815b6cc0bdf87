"""What a notebook shows of a report: the figures that count, nothing that runs, every name escaped."""

from dataclasses import replace
from html.parser import HTMLParser

from onnxadmm.report.notebook import table_of_report
from onnxadmm.report.rows import comparison_rows
from tests.report.samples import sample_report
from tests.test_hostile_names import BAD, unseen


class Read(HTMLParser):
    """Tags and texts of some HTML; every tag that opens must close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style", "scope"}
        self.tags.append(tag)
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_table_has_the_headline_figures_and_the_proof() -> None:
    report = sample_report()
    read = Read(table_of_report(report))
    rows = [row for row in comparison_rows(report) if row.headline]
    assert read.tags.count("tr") == len(rows) + 1
    for row in rows:
        assert {row.label, row.before, row.after, row.change} <= set(read.texts) | {""}
    assert any(text.startswith("Verified: masked original") for text in read.texts)


def test_few_warnings_are_shown_and_the_others_counted() -> None:
    report = replace(sample_report(), warnings=tuple(f"number {number}" for number in range(5)))
    texts = Read(table_of_report(report)).texts
    assert [text for text in texts if text.startswith("Warning: ")] == [f"Warning: number {n}" for n in range(3)]
    assert "2 more in .warnings" in texts


def test_names_do_nothing() -> None:
    report = sample_report()
    before = replace(report.before, model=replace(report.before.model, name=f"<script>alert(1)</script>{BAD}"))
    text = table_of_report(replace(report, before=before, warnings=(f'<img src=x onerror="x">{BAD}',)))
    assert set(Read(text).tags) == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert not unseen(text)


def test_a_report_that_proves_nothing_has_no_line_of_a_proof() -> None:
    text = table_of_report(replace(sample_report(), verification=None, latency=()))
    assert "erified" not in text
