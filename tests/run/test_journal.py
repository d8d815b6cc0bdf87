"""What a run tells on its way."""

from dataclasses import replace

from onnxadmm.progress import Silent
from onnxadmm.run.journal import Journal
from tests.report.samples import iterations


class Notes(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        self.said.append(sentence)


def told(*heldout: float | None, kept: int | None = 9, more_is_better: bool = True) -> list[str]:
    """What is noted about iterations with these held-out figures."""
    notes = Notes()
    journal = Journal(notes)
    journal.more_is_better = more_is_better
    for figure in heldout:
        journal.tell(replace(iterations()[0], heldout=figure, kept_units=kept))
    return notes.said


def test_a_dip_while_units_close_is_explained_once() -> None:
    (sentence,) = told(0.98, 0.99, 0.9, 0.3, 0.8, 0.2)
    assert "dips while units close" in sentence


def test_what_may_be_below_zero_dips_as_well() -> None:
    assert len(told(-0.1, -0.5)) == 1


def test_of_errors_a_rise_is_explained_and_a_fall_is_none() -> None:
    (sentence,) = told(0.1, 0.5, more_is_better=False)
    assert "rises while units close" in sentence
    assert told(0.5, 0.1, more_is_better=False) == []


def test_noise_is_no_dip_and_neither_is_one_while_retraining() -> None:
    assert told(0.98, 0.97, None, 0.99) == []
    assert told(0.98, 0.5, kept=None) == []
