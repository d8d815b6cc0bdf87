"""Answers of the teacher on a disk: the same for the run that asks and for the next one, and never those of others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxadmm.errors import DataError
from onnxadmm.train.data.answers import AnswersOnDisk
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.evaluate import Predictor, Teacher
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from tests.train.graphs import Array, DoubleGraph, mlp, random

X = random([23, 6], seed=1)
LOGITS = DoubleGraph(mlp()).run({"x": X})
PLACES = np.arange(23)


def data_of(samples: Array = X, **more: object) -> ArrayDataset:
    return load_data(samples, signature=signature_of(mlp()), loss=Loss(distillation=1.0), **more)


def kept(folder: Path, data: ArrayDataset | None = None, teacher: bytes = b"it") -> AnswersOnDisk:
    return AnswersOnDisk(data_of() if data is None else data, folder, teacher=teacher)


class Counting(Predictor):
    asked = 0

    def logits(self, inputs: dict[str, Array]) -> Array:
        Counting.asked += len(next(iter(inputs.values())))
        return super().logits(inputs)


def answered(folder: Path) -> list[Array]:
    """What a teacher says in two epochs, and how many samples it was asked about, in a run of its own."""
    data = data_of()
    teacher = Teacher(mlp(), loss=Loss())
    teacher.keep(data, kept(folder, data))
    found = []
    for epoch in range(2):
        logits = np.zeros_like(LOGITS, dtype=np.float32)
        for batch in data.batches(5, shuffle=True, seed=epoch):
            labelled = teacher.label(batch)
            assert labelled.teacher is not None
            logits[batch.indices] = labelled.teacher
        found.append(logits)
    return found


def test_the_next_run_asks_nothing_and_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxadmm.train.evaluate.Predictor", Counting)
    Counting.asked = 0
    first = answered(tmp_path)
    assert Counting.asked == 23
    second = answered(tmp_path)
    assert Counting.asked == 23
    for other in (first[1], *second):
        np.testing.assert_array_equal(first[0], other)
    np.testing.assert_allclose(first[0], LOGITS, rtol=2**-10, atol=1e-5)
    (folder,) = tmp_path.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) == 23 * (4 * 2 + 4)


@settings(max_examples=50, deadline=None)
@given(logits=arrays(np.float32, (4, 2, 3), elements=st.floats(width=32, allow_nan=False)), again=st.booleans())
def test_what_is_given_out_is_what_will_be_found_to_half_precision(
    tmp_path_factory: pytest.TempPathFactory, logits: Array, again: bool
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    answers, places = kept(folder), np.array([3, 0, 22, 7])
    given_out = answers.store(places, logits)
    found = (kept(folder) if again else answers).find(places)
    if np.abs(logits).max() < 65504:
        np.testing.assert_array_equal(found, given_out)
        np.testing.assert_allclose(given_out, logits, rtol=2**-10, atol=2**-24)
    elif np.abs(logits).max() > 65520:  # what is rounded up to more than there is
        assert found is None
        largest = np.abs(logits).reshape(4, -1).max(axis=1) > 65520
        np.testing.assert_array_equal(given_out[largest], logits[largest])


def test_an_answer_that_was_written_in_part_is_asked_for_again(tmp_path: Path) -> None:
    kept(tmp_path).store(PLACES, LOGITS.astype(np.float32))
    (path,) = tmp_path.glob("*/logits-*")
    half = np.memmap(path, np.float16, "r+", shape=(23, 4))
    half[5, 2] += 1
    half.flush()
    assert kept(tmp_path).find(np.array([4, 6])) is not None
    assert kept(tmp_path).find(np.array([4, 5])) is None


def test_answers_of_others_are_not_taken(tmp_path: Path) -> None:
    kept(tmp_path).store(PLACES, LOGITS.astype(np.float32))
    data = data_of()
    assert kept(tmp_path, data).find(PLACES) is not None
    others = {
        "another network": kept(tmp_path, teacher=b"other"),
        "another sample": kept(tmp_path, data_of(np.concatenate([X[:-1], X[:1]]))),
        "another order": kept(tmp_path, data_of(X[::-1])),
        "fewer": kept(tmp_path, data.take(PLACES[:20])),
        "other values that are fed": kept(tmp_path, replace(data, held={"temperature": np.ones(1)})),
    }
    assert len({other.folder for other in others.values()} | {kept(tmp_path).folder}) == 6
    for what, other in others.items():
        assert other.find(PLACES) is None, what


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"--cache .*cache: expected a folder that can be written to"):
        kept(tmp_path / "cache").store(PLACES, LOGITS.astype(np.float32))
