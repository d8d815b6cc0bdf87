"""What the command line shows while it works: stages with time left, iterations as a table, errors, JSON.

Everything said on the way goes to stderr; stdout holds results only, and nothing but JSON when JSON was asked for.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

from rich.console import Console
from rich.text import Text

from onnxadmm.errors import OnnxAdmmError, OptionError
from onnxadmm.progress import SILENT, Called, Iteration, ProgressLike
from onnxadmm.progress import Progress as Listener
from onnxadmm.report.codec import dumps, encode
from onnxadmm.report.escaping import for_terminal, shown
from onnxadmm.report.words import duration, large

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Anything longer than this is told about; anything shorter passes in silence.
_SILENT_SECONDS: Final = 2.0
# On a plain stream, at least this long between two lines about the same stage.
_LINE_SECONDS: Final = 10.0
_PLAIN_WIDTH: Final = 100
# Titles and widths; a row with every column fits into 100, and narrower ones leave out columns from the right.
_LEAD: Final = (("iter", 5), ("loss", 8), ("held-out", 9))
_UNITS: Final = ("units", 7)
_COST: Final = (("cost", 10), ("budget", 10))
_NEURONS: Final = (("primal", 8), ("dual", 8), ("rho", 8))
_CONNECTIONS: Final = (("w primal", 9), ("w dual", 8), ("w rho", 8))


def stderr_console() -> Console:
    """A console for everything said on the way."""
    return _console(stderr=True)


def stdout_console() -> Console:
    """A console for results."""
    return _console(stderr=False)


def print_json(document: object) -> None:
    """Write one JSON document, and nothing else, to stdout.

    Args:
        document: JSON objects as they are, or a dataclass or tuple of them, which is encoded first.

    Raises:
        ValueError: a number that JSON does not have (a defect).
        TypeError: something that has no JSON (a defect).
    """
    sys.stdout.write(dumps(document if isinstance(document, (dict, list)) else encode(document), indent=2) + "\n")
    sys.stdout.flush()


def print_error(error: OnnxAdmmError, console: Console) -> None:
    """Say in one sentence what is wrong."""
    line = Text("Error: ", style="bold red")
    line.append(shown(str(error), style="default"))
    console.print(line, soft_wrap=True)


def print_line(sentence: str, console: Console) -> None:
    """Print a sentence as it is: unbroken, with nothing in a name that a terminal would act upon."""
    console.print(shown(sentence), soft_wrap=True)


def progress_of(*, quiet: bool) -> AbstractContextManager[Listener]:
    """Return what a verb tells its progress to, on stderr; nobody where it shall be quiet."""
    return nullcontext(SILENT) if quiet else ConsoleProgress(stderr_console())


def listening(progress: ProgressLike) -> AbstractContextManager[Listener]:
    """Return what a call from Python tells its progress to, as a context that ends its last stage.

    Args:
        progress: True: this console, or the notebook that runs here; False: nobody; a ``Progress``; or a callback.

    Raises:
        OptionError: it is nothing of these.
    """
    if isinstance(progress, bool):
        return ConsoleProgress(stderr_console()) if progress else nullcontext(SILENT)
    if all(callable(getattr(progress, name, None)) for name in ("stage", "advance", "iteration", "note")):
        return nullcontext(cast(Listener, progress))
    if callable(progress):
        return nullcontext(Called(progress))
    raise OptionError(
        "progress",
        expected="True, False, a callable, or an object with the methods of onnxadmm.Progress",
        found=f"a {type(progress).__name__}",
        way_out="give True to see what happens",
    )


class ConsoleProgress:
    """A ``Progress`` that shows what happens: bars on a terminal and in a notebook, plain lines elsewhere.

    Used as a context, which ends the last stage::

        with ConsoleProgress(stderr_console()) as progress:
            compress(..., progress=progress)
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name: str | None = None
        self._total: int | None = None
        self._done = 0
        self._began = 0.0
        self._spoke = 0.0
        self._header: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage(finished=error is None)

    def stage(self, name: str, *, total: int | None = None) -> None:
        """End the stage before and begin the next one."""
        self._end_stage(finished=True)
        self._name, self._total, self._done = for_terminal(name), total, 0
        self._header = ()
        self._began = self._spoke = self._clock()
        if self._console.is_terminal or _draws_in_notebook(self._console):
            self._bar = _bar(self._console, counted=total is not None)
            self._task = self._bar.add_task(self._name, total=total)
            self._bar.start()

    def advance(self, steps: int = 1) -> None:
        """Move the bar, or say a line now and then."""
        self._done += steps
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps)
            return
        now = self._clock()
        since = _SILENT_SECONDS if self._spoke == self._began else _LINE_SECONDS
        if self._name is not None and now - self._spoke >= since and self._done != self._total:
            self._spoke = now
            self._console.print(Text(f"{self._name}: {self._state(now - self._began)}"), soft_wrap=True)

    def iteration(self, row: Iteration) -> None:
        """Print one row of the table, and its header when it is the first of its kind."""
        header, cells = iteration_cells(row, width=self._console.width)
        if header != self._header:
            self._header = header
            self._console.print(Text("".join(header), style="bold"), soft_wrap=True)
        self._console.print(Text("".join(cells)), soft_wrap=True)

    def note(self, sentence: str) -> None:
        """Print a sentence."""
        print_line(sentence, self._console)

    def _state(self, elapsed: float) -> str:
        if self._total is None:
            return f"{self._done} done in {duration(elapsed)}"
        share = self._done / max(1, self._total)
        left = f", about {duration(elapsed * (1 - share) / share)} left" if share > 0 else ""
        return f"{self._done} of {self._total} ({100 * share:.0f} %){left}"

    def _end_stage(self, *, finished: bool) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        if self._name is not None and finished:
            elapsed = self._clock() - self._began
            if elapsed >= _SILENT_SECONDS:
                self._console.print(Text(f"{self._name}: {duration(elapsed)}", style="dim"), soft_wrap=True)
        self._name = None


def iteration_cells(row: Iteration, *, width: int = _PLAIN_WIDTH) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Header and cells of one table row, already padded; columns the row has nothing or no room for are left out.

    ``primal``, ``dual`` and ``rho`` are those of the units' gates, ``w primal``... those of single weights.
    """
    titles = list(_LEAD)
    loss = f"{row.loss:.4f}" if row.loss < 100 else f"{row.loss:.3g}"
    cells = [str(row.iteration), loss, "-" if row.heldout is None else f"{row.heldout:.4f}"]
    if row.kept_units is not None:
        titles.append(_UNITS)
        cells.append(f"{row.kept_units:,}")
    for title, cost in zip(_COST, (row.cost, row.budget), strict=True):
        if cost is not None:
            titles.append(title)
            cells.append(large(round(cost)))
    for columns, residuals in ((_NEURONS, row.neurons), (_CONNECTIONS, row.connections)):
        if residuals is not None:
            titles += columns
            cells += [f"{value:.2g}" for value in (residuals.primal, residuals.dual, residuals.rho)]
    fitting = sum(total <= width for total in accumulate(room for _, room in titles))
    header = tuple(title.rjust(room) for title, room in titles[:fitting])
    return header, tuple(cell.rjust(room) for cell, (_, room) in zip(cells, titles[:fitting], strict=False))


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if console.is_terminal:
        return console
    # A log has no width of its own; lines are not broken at 80 columns because of that.
    return Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


def _draws_in_notebook(console: Console) -> bool:
    """Whether a bar can move in a notebook: rich draws it with ipywidgets, which not every one has."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def _bar(console: Console, *, counted: bool) -> "Progress":
    # Imported late: every command would wait for it, completion too.
    from rich import progress

    if not counted:
        spinner = (progress.SpinnerColumn(), progress.TextColumn("{task.description}", markup=False))
        return progress.Progress(*spinner, console=console, transient=True)
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
        console=console,
        transient=True,
    )
