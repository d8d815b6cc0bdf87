"""Steps that are timed before a run: those of the first epoch and of later ones, and looks that would take long."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.compress import begun
from onnxadmm.demo import DemoFiles
from onnxadmm.run import rehearsal
from onnxadmm.run.rehearsal import Pace, _Taken, _timed
from onnxadmm.run.steps import Compression
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.evaluate import Teacher
from tests.estimate.calls import called
from tests.shared import needs_training

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def test_steps_on_samples_that_were_not_seen_take_what_they_take() -> None:
    pace = Pace(opening=3.0, step=1.0, look=2.0, first_step=1.5)
    assert pace.seconds(steps=30, looks=4, first=10) == 3 + 10 * 1.5 + 20 * 1.0 + 8
    assert pace.seconds(steps=5, looks=0, first=10) == 3 + 5 * 1.5
    assert pace.known.seconds(steps=30, looks=4, first=10) == 3 + 30 + 8
    assert Pace(3.0, 1.0, 2.0).seconds(steps=30, looks=4, first=10) == 3 + 30 + 8


def test_what_a_batch_is_waited_for_and_what_it_is_used_for_are_told_apart() -> None:
    def slow() -> Any:
        for number in range(4):
            time.sleep(0.02)
            yield Batch({}, None, None, number)

    taken = _Taken()
    for _ in _timed(slow(), taken):
        time.sleep(0.05)
    # Of the last batch nobody knows how long it was used.
    assert len(taken.whole) == len(taken.waited) == 3
    assert all(0.019 <= waited <= whole - 0.049 for waited, whole in zip(taken.waited, taken.whole, strict=True))
    assert taken.batch is not None
    assert taken.batch.count == 3


def run_of(digits: DemoFiles, few_digits: Digits, **given: Any) -> Any:
    recipe = oa.Recipe(epochs=2, retrain_epochs=2, batch_size=64)
    call = called(digits.model, data=few_digits, budget={"params": 0.5}, recipe=recipe, bench=False, **given)
    return begun(SimpleNamespace(**call), writes=False)


@needs_training
def test_answers_of_the_teacher_are_kept_where_nothing_is_drawn(digits: DemoFiles, few_digits: Digits) -> None:
    for augment, keeps in (("", True), ("flip", False)):
        with run_of(digits, few_digits, preprocessing={"augment": augment}) as (run, _):
            assert run.training.keeps is keeps


@needs_training
def test_later_epochs_are_timed_on_samples_whose_answers_are_known_and_leave_none_behind(
    digits: DemoFiles, few_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    label = Teacher.label

    def counted(self: Teacher, batch: Batch) -> Batch:
        asked.append(id(self))
        return label(self, batch)

    with run_of(digits, few_digits) as (run, _):
        monkeypatch.setattr(Teacher, "label", counted)
        seen = run.training.apart().of_known(2)
        assert len(seen.samples) == len(run.training.samples)
        assert len(np.unique(seen.samples.order)) == 128
        assert len(asked) == 2
        kept = next(iter(seen.teacher._kept.values()))
        with seen.epochs() as batches:
            for batch in batches(0, 0):
                assert kept.find(batch.indices) is not None
        assert seen.teacher is not run.training.teacher
        assert not run.training.teacher._kept


@needs_training
def test_the_first_epoch_of_a_run_with_a_teacher_is_told_apart(digits: DemoFiles, few_digits: Digits) -> None:
    with run_of(digits, few_digits) as (run, _):
        forecast = foreseen(run)
        assert forecast.prune.first_step is not None
        assert forecast.retrain is not None
        assert forecast.retrain.first_step is None  # pruning has seen all samples
        assert forecast.prune.details is None  # nobody looked closer


def foreseen(run: Compression) -> Any:
    run.foresee()
    assert run.shared.reading is not None
    return run.shared.reading.paces


@needs_training
def test_a_look_that_would_take_long_is_taken_in_part_and_told_as_a_whole(
    digits: DemoFiles, few_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def metrics(self: Any, model: Any, data: Any) -> None:
        looked.append(len(data))
        time.sleep(0.001 * len(data))

    with run_of(digits, few_digits) as (run, _):
        training = run.training
        network = training.network(run.ready)
        with training.trainer(network, epochs=1, weight_decay=0.0, tells=False) as trainer:
            monkeypatch.setattr(type(training), "metrics", metrics)
            monkeypatch.setattr(rehearsal, "_LEAST_LOOK", 16)
            data = training.samples
            for step, expected in ((0.001, len(data)), (1000.0, 16)):
                looked.clear()
                _, evaluation = rehearsal._look(training, run.ready, network, trainer, data, step=step)
                assert looked == [expected]
                assert evaluation >= 0.001 * len(data)
