"""How a batch is cut, how many workers pay, and what memory they take."""

import sys

import onnx
import pytest
from onnx import helper

from onnxadmm.errors import OptionError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from onnxadmm.train.workers import count as worker_count
from onnxadmm.train.workers.count import multiplications, worthwhile_workers
from onnxadmm.train.workers.parts import cut
from tests.shared import needs_training
from tests.train.graphs import mlp, model_of, random

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def test_a_batch_is_cut_into_parts_of_two_sizes_that_cover_it() -> None:
    for size in range(1, 40):
        for count in range(1, 5):
            for accumulate in range(1, 5):
                if count * accumulate > size:
                    continue
                parts = [part for parts in cut(size, workers=count, accumulate=accumulate) for part in parts]
                sizes = [part.size for part in parts]
                assert [part.start for part in parts] == [sum(sizes[:place]) for place in range(len(parts))]
                assert [part.number for part in parts] == list(range(count * accumulate))
                assert sum(sizes) == size
                assert max(sizes) - min(sizes) <= 1


def test_more_parts_than_samples_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--workers.*\(4\)"):
        cut(4, workers=2, accumulate=3)


@needs_training
def test_a_model_that_does_not_train_on_a_part_alone_is_refused_when_workers_are_asked_for() -> None:
    with pytest.raises(OptionError, match="--workers, --accumulate"):
        OrtTrainer(tied_to_its_batch(), loss=Loss(Task.MSE), batch_size=4, workers=2)


@needs_training
def test_as_many_workers_as_pay_are_one_when_the_batch_cannot_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxadmm.train.trainer.worthwhile_workers", lambda *_, **__: 2)
    with OrtTrainer(tied_to_its_batch(), loss=Loss(Task.MSE), batch_size=4, workers=None) as trainer:
        assert trainer.workers == 1


def tied_to_its_batch() -> onnx.ModelProto:
    """A constant with a row for each of exactly four samples."""
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "rows"], ["y"])],
        inputs={"x": [4, 3]},
        outputs=["y"],
        weights={"w": random([3, 2]), "rows": random([4, 2])},
    )


@needs_training
def test_workers_pay_only_where_there_is_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    large = prepare(mlp(inputs=1024, hidden=2048, outputs=1024), loss=Loss(), batch_size=64)
    monkeypatch.setattr(worker_count, "usable_cores", lambda: 6)
    assert worthwhile_workers(large, steps=10_000, threads=1, accumulate=1) == 6
    assert worthwhile_workers(large, steps=10_000, threads=2, accumulate=1) == 3
    assert worthwhile_workers(large, steps=10_000, threads=1, accumulate=4) == 2
    assert worthwhile_workers(large, steps=10, threads=1, accumulate=1) == 1
    small = prepare(mlp(), loss=Loss(), batch_size=64)
    assert worthwhile_workers(small, steps=1_000_000, threads=1, accumulate=1) == 1


def test_multiplications_are_counted_from_shapes() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["y"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["z"]),
    ]
    weights = {"k": random([6, 2, 3, 3]), "m": random([6 * 25, 10])}
    model = model_of(nodes, inputs={"x": [2, 4, 5, 5]}, outputs=["z"], weights=weights)
    assert multiplications(onnx.shape_inference.infer_shapes(model)) == 2 * (6 * 25 * 2 * 9 + 150 * 10)


@pytest.mark.slow
@needs_training
def test_expected_memory_falls_with_parts_and_counts_every_process() -> None:
    expected = {}
    for workers_, accumulate in ((1, 1), (1, 4), (2, 1)):
        with OrtTrainer(
            mlp(), loss=Loss(Task.MSE), batch_size=4096, workers=workers_, accumulate=accumulate
        ) as trainer:
            expected[workers_, accumulate] = trainer.expected_bytes
    assert expected[1, 4] < 0.3 * expected[1, 1]
    assert abs(expected[2, 1] / expected[1, 1] - 1) < 0.05
