"""Who may listen to a call from Python: events for a callback, lines in a log."""

import logging

import pytest

import onnxadmm as oa
from onnxadmm.progress import Called, Event, Progress, Silent
from tests.report.samples import iterations


def tell(progress: Progress) -> None:
    """A short run: two stages, an iteration, a note, a warning."""
    progress.stage("prune", total=2)
    progress.advance()
    progress.iteration(iterations()[0])
    progress.advance(3)
    progress.note("The data have gaps.")
    progress.note("Warning: it is slow.")
    progress.stage("measure")


def test_a_callback_is_called_with_a_typed_event_for_each_thing_that_happens() -> None:
    events: list[Event] = []
    tell(Called(events.append))
    assert events == [
        oa.Stage("prune", 2),
        oa.Advance(1),
        iterations()[0],
        oa.Advance(3),
        oa.Note("The data have gaps."),
        oa.Note("Warning: it is slow."),
        oa.Stage("measure", None),
    ]


def test_what_a_callback_raises_goes_on() -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell(Called(stop))


def test_a_log_has_one_logger_and_warnings_as_such(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell(oa.LoggedProgress())
    assert {record.name for record in caplog.records} == {"onnxadmm"}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "prune, 2 steps"),
        ("INFO", "prune 1: loss 0.3, held-out 0.9810, cost 4e+05 of 3.8e+05"),
        ("INFO", "The data have gaps."),
        ("WARNING", "it is slow."),
        ("INFO", "measure"),
    ]


def test_an_iteration_without_figures_is_logged_without_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        oa.LoggedProgress().iteration(iterations()[-1])
    assert caplog.messages == ["retrain 1: loss 0.05"]


def test_silence_is_silent(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        tell(Silent())
    assert not caplog.records
    assert capsys.readouterr() == ("", "")
