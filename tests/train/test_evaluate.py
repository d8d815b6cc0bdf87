import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.errors import DataError, ModelFileError
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.evaluate import Predictor, Teacher, evaluate
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.metrics import Meter
from onnxadmm.train.prepare.signature import signature_of
from tests.train.graphs import Array, DoubleGraph, mlp, random

X = random([23, 6], seed=1)
Y = np.random.default_rng(1).integers(0, 4, 23)
LOGITS = DoubleGraph(mlp()).run({"x": X})


def data_of(*, labels: bool = True, loss: Loss | None = None) -> ArrayDataset:
    source = (X, Y) if labels else X
    return load_data(source, signature=signature_of(mlp()), loss=loss or Loss())


def expected_loss() -> float:
    powers = np.exp(LOGITS)
    return float(-np.log(powers[np.arange(23), Y] / powers.sum(axis=1)).mean())


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many samples each run is."""
    found: list[int] = []
    honest = Predictor._run

    def watched(self: Predictor, inputs: dict[str, Array], count: int) -> Array:
        found.append(count)
        return honest(self, inputs, count)

    monkeypatch.setattr(Predictor, "_run", watched)
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_metrics_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    metrics = evaluate(mlp(), data_of(), loss=Loss(), batch_size=batch_size)
    assert metrics.count == 23
    assert metrics.accuracy == float((LOGITS.argmax(axis=1) == Y).mean())
    assert metrics.loss == pytest.approx(expected_loss(), rel=1e-5)
    assert metrics.against == "labels"


@pytest.mark.parametrize("fixed", [1, 4, 23])
def test_model_of_fixed_batch_is_padded_and_counts_every_sample_once(fixed: int) -> None:
    metrics = evaluate(mlp(batch=fixed), data_of(), loss=Loss(), batch_size=10)
    assert metrics.count == 23
    assert metrics.loss == pytest.approx(expected_loss(), rel=1e-5)


def test_large_samples_are_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> None:
    monkeypatch.setattr("onnxadmm.train.evaluate._PART_BYTES", 5 * 6 * 4)  # five samples of six numbers
    metrics = evaluate(mlp(), data_of(), loss=Loss())
    assert counts == [5, 5, 5, 5, 3]
    assert metrics.accuracy == float((LOGITS.argmax(axis=1) == Y).mean())
    assert metrics.loss == pytest.approx(expected_loss(), rel=1e-5)


def test_parts_of_a_batch_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    honest, together = Predictor._run, threading.Barrier(3)

    def watched(self: Predictor, inputs: dict[str, Array], count: int) -> Array:
        counts.append(count)
        together.wait(timeout=20)  # broken unless three are here
        return honest(self, inputs, count)

    monkeypatch.setattr(Predictor, "_run", watched)
    labelled = Teacher(mlp(), loss=Loss(), beside=3).label(next(iter(data_of().batches(23))))
    assert sorted(counts) == [7, 8, 8]
    assert labelled.teacher is not None
    np.testing.assert_allclose(labelled.teacher, LOGITS, atol=1e-5)


@pytest.mark.parametrize(("fixed", "most"), [(None, None), (None, 6), (5, None)], ids=["free", "large", "fixed"])
@pytest.mark.parametrize("beside", [2, 3, 50])
def test_answers_do_not_depend_on_how_many_parts_run_at_a_time(
    beside: int, fixed: int | None, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most is not None:
        monkeypatch.setattr("onnxadmm.train.evaluate._PART_BYTES", most * 6 * 4)
    model = mlp() if fixed is None else mlp(batch=fixed)
    found = Predictor(model, task=Task.CROSS_ENTROPY, beside=beside).logits({"x": X})
    np.testing.assert_allclose(found, LOGITS, atol=1e-5)


def test_what_runs_at_a_time_is_together_no_larger_than_one_part_alone(
    monkeypatch: pytest.MonkeyPatch, counts: list[int]
) -> None:
    monkeypatch.setattr("onnxadmm.train.evaluate._PART_BYTES", 6 * 6 * 4)  # six samples of six numbers
    Predictor(mlp(), task=Task.CROSS_ENTROPY, beside=2).logits({"x": X})
    assert sorted(counts) == [2, 3, 3, 3, 3, 3, 3, 3]


def test_tail_makes_no_difference() -> None:
    model = mlp()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    model.graph.output[0].name = "p"
    assert evaluate(model, data_of(), loss=Loss()) == evaluate(mlp(), data_of(), loss=Loss())


def test_model_newer_than_the_runtime_is_evaluated_on_a_converted_copy() -> None:
    model = mlp()
    model.opset_import[0].version = 23
    model.ir_version = 12
    assert evaluate(model, data_of(), loss=Loss()).loss == pytest.approx(expected_loss(), rel=1e-5)


def test_teacher_stands_in_for_missing_labels() -> None:
    data = data_of(labels=False, loss=Loss(distillation=1.0))
    with pytest.raises(DataError, match="labels to measure with"):
        evaluate(mlp(), data, loss=Loss(distillation=1.0))
    metrics = evaluate(mlp(), data, loss=Loss(distillation=1.0), teacher=Teacher(mlp(), loss=Loss()))
    assert metrics.against == "teacher"
    assert metrics.accuracy == 1.0
    assert metrics.loss == pytest.approx(0.0, abs=1e-9)


def test_no_samples_are_refused() -> None:
    data = data_of()
    with pytest.raises(DataError, match="at least one sample"):
        evaluate(mlp(), data.take(np.zeros(0, np.int64)), loss=Loss())


def test_teacher_gives_each_sample_its_own_logits_whatever_the_order() -> None:
    teacher = Teacher(mlp(), loss=Loss())
    for seed in range(3):
        for batch in data_of().batches(5, shuffle=True, seed=seed):
            labelled = teacher.label(batch)
            assert labelled.teacher is not None
            assert batch.indices is not None
            np.testing.assert_allclose(labelled.teacher, LOGITS[batch.indices], atol=1e-5)


class Counting(Predictor):
    calls = 0

    def logits(self, inputs: dict[str, Array]) -> NDArray[np.float32]:
        Counting.calls += 1
        return super().logits(inputs)


def test_teacher_runs_once_per_sample_unless_it_is_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxadmm.train.evaluate.Predictor", Counting)
    Counting.calls = 0
    teacher = Teacher(mlp(), loss=Loss())
    data = data_of()
    for seed in range(4):
        for batch in data.batches(5, shuffle=seed > 0, seed=seed):
            teacher.label(batch)
    assert Counting.calls == 5
    origin = next(iter(data.batches(1))).origin
    changed = Batch({"x": X + 1}, Y, None, 23, indices=np.arange(23), augmented=True, origin=origin)
    result = teacher.label(changed)
    assert Counting.calls == 6
    assert result.teacher is not None
    assert not np.allclose(result.teacher, LOGITS)


def test_teacher_does_not_mix_up_two_sets_of_samples_with_the_same_numbers() -> None:
    teacher = Teacher(mlp(), loss=Loss())
    other = load_data((X + 1, Y), signature=signature_of(mlp()), loss=Loss())
    (first,) = (teacher.label(batch) for batch in data_of().batches(23))
    (second,) = (teacher.label(batch) for batch in other.batches(23))
    assert second.teacher is not None
    np.testing.assert_allclose(second.teacher, DoubleGraph(mlp()).run({"x": X + 1}), atol=1e-5)
    assert first.teacher is not None
    assert not np.allclose(first.teacher, second.teacher)


def test_model_the_runtime_cannot_load_is_refused() -> None:
    model = mlp()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelFileError, match="NoSuchOperator"):
        Predictor(model, task=Task.CROSS_ENTROPY)


def test_bce_counts_right_signs_and_mse_has_no_accuracy() -> None:
    meter = Meter(Loss(Task.BCE))
    meter.add(np.array([[2.0], [-1.0], [-3.0]]), np.array([[1.0], [1.0], [0.0]]), None)
    assert meter.result().accuracy == pytest.approx(2 / 3)
    meter = Meter(Loss(Task.MSE))
    meter.add(np.array([[2.0], [0.0]]), np.array([[1.0], [0.0]]), None)
    assert meter.result().accuracy is None
    assert meter.result().loss == pytest.approx(0.5)


def test_meter_refuses_to_measure_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Meter(Loss()).result()
    with pytest.raises(ValueError, match="nothing to compare"):
        Meter(Loss()).add(np.zeros((1, 2)), None, None)
