"""Writing report.json, report.md, report.html and history.jsonl so that nobody ever reads half of one."""

from pathlib import Path
from types import TracebackType
from typing import Final

from onnxadmm.files import cannot_write, discard, hidden_beside, hold, refuse_existing, sweep
from onnxadmm.progress import Iteration
from onnxadmm.report.codec import dumps, encode
from onnxadmm.report.markdown import to_markdown
from onnxadmm.report.reading import NAME, to_document
from onnxadmm.report.report import Report

MARKDOWN_NAME: Final = "report.md"
PAGE_NAME: Final = "report.html"
#: What ``write_report`` writes.
REPORT_NAMES: Final = frozenset((NAME, MARKDOWN_NAME, PAGE_NAME))


def write_report(report: Report, folder: str | Path, *, force: bool = False) -> tuple[Path, Path, Path]:
    """Write ``report.json``, ``report.md`` and ``report.html`` into an existing folder.

    Returns:
        The three paths.

    Raises:
        OutputError: a file exists and ``force`` is False, or it cannot be written.
    """
    # Imported late: other verbs write text and make no page.
    from onnxadmm.report.page import page_of_report

    paths = (Path(folder) / NAME, Path(folder) / MARKDOWN_NAME, Path(folder) / PAGE_NAME)
    texts = (dumps(to_document(report), indent=2) + "\n", to_markdown(report), page_of_report(report))
    for path in paths:
        refuse_existing(path, force=force)
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths


def write_text(path: Path, text: str) -> None:
    """Replace a file by ``text`` in UTF-8 at once: under its name stands the old content or the new.

    Raises:
        OutputError: it cannot be written; what was there stays.
    """
    sweep(path.parent)
    temporary = hidden_beside(path)
    try:
        # Paths may hold bytes that are no text; they are shown, not refused.
        with temporary.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            hold(file)
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        discard(temporary)
        raise cannot_write(path, error) from error


class HistoryWriter:
    """Appends iterations to ``history.jsonl``, one complete line at a time.

    Each line is one write to a file opened for appending, so a crash leaves whole lines; half a line that a power cut
    left behind is cut off when the file is opened again.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it.

        Raises:
            OutputError: it cannot be written.
        """
        self.path = Path(path)
        try:
            self._file = self.path.open("ab", buffering=0)
            _cut_half_line(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def append(self, row: Iteration) -> None:
        """Write one line.

        Raises:
            OutputError: the disk is full, or the file is gone.
        """
        try:
            self._file.write(dumps(encode(row)).encode() + b"\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "HistoryWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut_half_line(path: Path) -> None:
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
