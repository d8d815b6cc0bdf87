"""What a run tells on its way: progress to whoever listens, iterations to the history, the time of each stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from onnxadmm.progress import Iteration, Progress
from onnxadmm.report.report import StageTime
from onnxadmm.report.writer import HistoryWriter


class Journal:
    """Everything a run has told so far.

    Attributes:
        progress: told what happens.
        history: every iteration of the two trainings.
        stages: the stages that are over, with their seconds.
        notes, warnings: sentences for the report.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.history: list[Iteration] = []
        self.stages: list[StageTime] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._file: HistoryWriter | None = None

    @contextmanager
    def writing(self, file: HistoryWriter) -> Iterator[None]:
        """Append iterations to a file as well, and close it at the end."""
        with file:
            self._file = file
            try:
                yield
            finally:
                self._file = None

    @contextmanager
    def stage(self, name: str, *, total: int | None = None) -> Iterator[None]:
        """A stage of ``total`` steps (None: unknown), timed when it succeeds."""
        self.progress.stage(name, total=total)
        start = time.perf_counter()
        yield
        self.stages.append(StageTime(name, time.perf_counter() - start))

    def tell(self, row: Iteration) -> None:
        """An iteration of the current stage is over."""
        self.history.append(row)
        if self._file is not None:
            self._file.append(row)
        self.progress.iteration(row)
        self.progress.advance()
