"""What a run tells on its way: progress to whoever listens, iterations to the history, the time of each stage."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from onnxadmm.progress import Iteration, Progress
from onnxadmm.report.report import StageTime
from onnxadmm.report.writer import HistoryWriter

# A fall of the held-out figure that one would wonder about.
_DIP: Final = 0.02


class Journal:
    """Everything a run has told so far.

    Attributes:
        progress: told what happens.
        history: every iteration of the two trainings.
        stages: the stages that are over, with their seconds.
        notes, warnings: sentences for the report.
        workers: processes that shared a batch, at most.
        more_is_better: of the held-out figure, or less.
        training_bytes: estimate of the memory of a training step, the largest of the two trainings.
        waited: seconds that both trainings waited for their batches.
        loaded: seconds that it took to read the data.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.history: list[Iteration] = []
        self.stages: list[StageTime] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.workers = 1
        self.more_is_better = True
        self.training_bytes = 0
        self.waited = 0.0
        self.loaded = 0.0
        self._before: dict[str, float] = {}
        self._running: tuple[str, float] | None = None
        self._file: HistoryWriter | None = None
        self._explained = False

    def resume(self, history: Sequence[Iteration], seconds: Mapping[str, float]) -> None:
        """Go on from what an interrupted run had told: its iterations, and the seconds it spent on each stage."""
        self.history = list(history)
        self._before = dict(seconds)

    def seconds(self) -> dict[str, float]:
        """Seconds spent on each stage so far, the running one and an interrupted run included."""
        spent = {**self._before, **{stage.name: stage.seconds for stage in self.stages}}
        if self._running is not None:
            name, start = self._running
            spent[name] = self._before.get(name, 0.0) + time.perf_counter() - start
        return spent

    @contextmanager
    def writing(self, file: HistoryWriter) -> Iterator[None]:
        """Write iterations to a file as well, those so far included, and close it at the end."""
        with file:
            for row in self.history:
                file.append(row)
            self._file = file
            try:
                yield
            finally:
                self._file = None

    @contextmanager
    def stage(self, name: str, *, total: int | None = None) -> Iterator[None]:
        """A stage of ``total`` steps (None: unknown), timed when it succeeds; iterations told before are done."""
        self.progress.stage(name, total=total)
        done = sum(row.stage == name for row in self.history)
        if done:
            self.progress.advance(done)
        self._running = (name, time.perf_counter())
        yield
        self.stages.append(StageTime(name, self.seconds()[name]))
        self._running = None

    def say(self, sentence: str) -> None:
        """Tell something that the report shall hold as well."""
        self.notes.append(sentence)
        self.progress.note(sentence)

    def warn(self, sentence: str) -> None:
        """Warn while there is time to stop, and in the report."""
        self.warnings.append(sentence)
        self.progress.note(f"Warning: {sentence}")

    def state_memory(self, expected: int, *, processes: int) -> None:
        """Say before a training what memory its steps will take, in bytes, and keep the largest for the report."""
        self.training_bytes = max(self.training_bytes, expected)
        shared = f" in {processes} processes" if processes > 1 else ""
        self.progress.note(
            f"Training steps will take about {expected / 1e6:.0f} MB{shared}; --accumulate or a smaller --batch-size "
            "takes less."
        )

    def _explain(self, row: Iteration) -> None:
        """Say, the first time it happens, that it is no harm when the held-out figure gets worse while units close."""
        sign = 1 if self.more_is_better else -1
        before = [sign * done.heldout for done in self.history if done.stage == row.stage and done.heldout is not None]
        if self._explained or row.kept_units is None or row.heldout is None or not before:
            return
        best = max(before)
        if sign * row.heldout < best - max(_DIP, _DIP * abs(best)):
            self._explained = True
            self.progress.note(
                f"The held-out figure {'dips' if self.more_is_better else 'rises'} while units close: weights have not "
                "settled yet, and the small network is retrained afterwards."
            )

    def tell(self, row: Iteration) -> None:
        """An iteration of the current stage is over."""
        self._explain(row)
        self.history.append(row)
        if self._file is not None:
            self._file.append(row)
        self.progress.iteration(row)
        self.progress.advance()
