"""What is said on the way: where, when, and how wide."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from onnxadmm.console import (
    ConsoleProgress,
    iteration_cells,
    listening,
    print_error,
    print_json,
    stderr_console,
    stdout_console,
)
from onnxadmm.errors import OptionError
from onnxadmm.progress import SILENT, Advance, Iteration, Progress, Stage
from tests.report.samples import iterations, sample_report


class Clock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain() -> tuple[ConsoleProgress, Clock, io.StringIO]:
    """A progress on a stream that is no terminal."""
    stream, clock = io.StringIO(), Clock()
    return ConsoleProgress(Console(file=stream, width=100), clock=clock), clock, stream


def run(progress: Progress, clock: Clock, *, steps: int, seconds: float) -> None:
    """A stage of ``steps`` steps that take ``seconds`` each."""
    progress.stage("prune", total=steps)
    for _ in range(steps):
        clock.now += seconds
        progress.advance()


def test_a_stage_under_two_seconds_says_nothing() -> None:
    progress, clock, stream = plain()
    with progress:
        run(progress, clock, steps=10, seconds=0.19)
    assert stream.getvalue() == ""


def test_a_longer_stage_says_the_time_left_and_then_the_time_it_took() -> None:
    progress, clock, stream = plain()
    with progress:
        run(progress, clock, steps=60, seconds=1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "prune: 2 of 60 (3 %), about 58 s left"
    assert lines[1] == "prune: 12 of 60 (20 %), about 48 s left"
    assert lines[-1] == "prune: 1 min 00 s"
    assert len(lines) == 7


def test_a_stage_of_unknown_length_says_how_much_is_done() -> None:
    progress, clock, stream = plain()
    with progress:
        progress.stage("read", total=None)
        clock.now += 3
        progress.advance(5)
    assert stream.getvalue().splitlines() == ["read: 5 done in 3.0 s", "read: 3.0 s"]


def test_the_next_stage_ends_the_one_before() -> None:
    progress, clock, stream = plain()
    with progress:
        progress.stage("first")
        clock.now += 4
        progress.stage("second")
        clock.now += 1
    assert stream.getvalue().splitlines() == ["first: 4.0 s"]


def test_a_stage_that_fails_is_not_called_done() -> None:
    progress, clock, stream = plain()

    def fail() -> None:
        with progress:
            progress.stage("prune", total=10)
            clock.now += 100
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert stream.getvalue() == ""


def test_iterations_are_a_table_with_one_header_per_stage() -> None:
    progress, _, stream = plain()
    with progress:
        first, second, third = iterations()
        progress.stage("prune")
        progress.iteration(first)
        progress.iteration(second)
        progress.stage("retrain")
        progress.iteration(third)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["iter", "1", "2", "iter", "1"]
    assert "primal" in lines[0]
    assert "primal" not in lines[3]
    assert max(map(len, lines)) <= 100


def test_columns_stand_under_their_titles_even_with_extreme_figures() -> None:
    first = iterations()[0]
    assert first.neurons is not None
    extreme = replace(
        first,
        iteration=9999,
        loss=123.45678,
        kept_units=99_999,
        cost=4.1e9,
        budget=999_999,
        neurons=replace(first.neurons, primal=1.2345e-30, dual=1.2345e20, rho=0),
        connections=replace(first.neurons, primal=1.2345e-30, dual=math.inf, rho=math.nan),
    )
    header, cells = iteration_cells(extreme)
    assert [len(title) for title in header] == [len(cell) for cell in cells]
    assert sum(map(len, header)) <= 100
    assert all(cell.startswith(" ") for cell in cells)


@pytest.mark.parametrize(("width", "last"), [(40, "cost"), (60, "primal"), (80, "rho"), (120, "w rho")])
def test_a_narrow_terminal_gets_the_first_columns(width: int, last: str) -> None:
    header, cells = iteration_cells(iterations()[0], width=width)
    assert header[-1].strip() == last
    assert [len(title) for title in header] == [len(cell) for cell in cells]
    assert sum(map(len, header)) <= width


def test_a_terminal_gets_a_bar_that_leaves_no_trace_in_the_text() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with ConsoleProgress(console, clock=clock) as progress:
        run(progress, clock, steps=3, seconds=1)
        progress.note("something to know")
    shown = stream.getvalue()
    assert "3/3" in shown
    assert "something to know" in shown
    assert "prune: 3.0 s" in shown


def test_brackets_in_notes_and_stages_are_no_markup() -> None:
    progress, clock, stream = plain()
    with progress:
        progress.stage("conv [bold]x[/]")
        progress.note("layer [/a] stays")
        clock.now += 3
    assert stream.getvalue().splitlines() == ["layer [/a] stays", "conv [bold]x[/]: 3.0 s"]


def test_what_is_said_on_the_way_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleProgress(stderr_console()) as progress:
        progress.note("on the way")
    stdout_console().print("result")
    captured = capsys.readouterr()
    assert captured.out.strip() == "result"
    assert captured.err.strip() == "on the way"


def test_json_on_stdout_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": 1, "a": [1.5, None]})
    assert json.loads(capsys.readouterr().out) == {"b": 1, "a": [1.5, None]}


def test_a_dataclass_is_printed_as_json_with_infinity_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    proof = sample_report().verification
    assert proof is not None
    print_json(replace(proof, snr_db=math.inf))
    assert json.loads(capsys.readouterr().out)["snr_db"] == "inf"


def test_json_without_a_word_for_a_number_is_a_defect() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"a": math.nan})


def test_an_error_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    error = OptionError("--macs", expected="x" * 300, found="[red]y[/red]", way_out="z")
    print_error(error, stderr_console())
    assert capsys.readouterr().err == f"Error: {error}\n"


def test_silence_takes_everything_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    row: Iteration = iterations()[0]
    SILENT.stage("a", total=3)
    SILENT.advance()
    SILENT.iteration(row)
    SILENT.note("b")
    assert capsys.readouterr() == ("", "")


# -- who listens to a call from Python -----------------------------------------------------------------------


def test_a_progress_is_told_as_it_is_even_if_it_can_be_called() -> None:
    class Both(type(SILENT)):  # type: ignore[misc]
        def __call__(self, event: object) -> None:
            raise AssertionError

    both = Both()
    for progress in (SILENT, both):
        with listening(progress) as told:
            assert told is progress


def test_a_callable_is_called_with_events() -> None:
    events: list[object] = []
    with listening(events.append) as told:
        told.stage("prune", total=3)
        told.advance()
    assert events == [Stage("prune", 3), Advance(1)]


def test_true_and_false_are_the_console_and_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(False) as told:
        assert told is SILENT
    with listening(True) as told:
        told.note("so far")
    assert capsys.readouterr().err == "so far\n"


@pytest.mark.parametrize("wrong", [None, 3, "yes", object()])
def test_what_cannot_listen_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="progress: expected True, False, a callable, or an object with the methods"):
        listening(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_bars_where_it_can_draw_them(widgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert not console.is_terminal
    monkeypatch.setattr("onnxadmm.console.find_spec", lambda name: (name == "ipywidgets" and widgets) or None)
    drawn: list[object] = []
    monkeypatch.setattr("onnxadmm.console._bar", lambda console, counted: drawn.append(console) or Bar())
    with ConsoleProgress(console) as progress:
        progress.stage("prune", total=2)
        progress.advance()
    assert drawn == ([console] if widgets else [])


class Bar:
    """A bar of rich that draws nothing."""

    def add_task(self, name: str, total: int | None) -> int:
        return 0

    def start(self) -> None: ...

    def update(self, task: int, advance: int) -> None: ...

    def stop(self) -> None: ...
