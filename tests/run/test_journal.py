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


def told(*heldout: float | None, kept: int | None = 9) -> list[str]:
    """What is noted about iterations with these held-out figures."""
    notes = Notes()
    journal = Journal(notes)
    for figure in heldout:
        journal.tell(replace(iterations()[0], heldout=figure, kept_units=kept))
    return notes.said


def test_a_dip_while_units_close_is_explained_once() -> None:
    (sentence,) = told(0.98, 0.99, 0.9, 0.3, 0.8, 0.2)
    assert "dips while units close" in sentence


def test_a_dip_of_a_loss_is_one_as_well() -> None:
    assert len(told(-0.1, -0.5)) == 1


def test_noise_is_no_dip_and_neither_is_one_while_retraining() -> None:
    assert told(0.98, 0.97, None, 0.99) == []
    assert told(0.98, 0.5, kept=None) == []
