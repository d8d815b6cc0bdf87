import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.child_process import environment
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import WorkerError
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from onnxadmm.train.workers import memory as shared_memory
from onnxadmm.train.workers import pool as workers
from tests.shared import needs_training
from tests.train.graphs import mlp, random

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

BATCH = 11


def several_inputs() -> onnx.ModelProto:
    """Rows of a table chosen by integers, beside numbers: ids int64 [N, 3], x float32 [N, 2]."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("Concat", ["flat", "x"], ["joined"], axis=1),
        helper.make_node("Gemm", ["joined", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "several",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 3]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(array, name)
            for name, array in {
                "table": random([7, 4], seed=1),
                "w": random([14, 6], seed=2, scale=0.3),
                "b": random([6], seed=3),
                "v": random([6, 4], seed=4),
            }.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batch(seed: int = 0, count: int = BATCH) -> Batch:
    """Samples for both models, with labels and a teacher."""
    generator = np.random.default_rng(seed)
    inputs = {
        "ids": generator.integers(0, 7, (count, 3)),
        "x": generator.standard_normal((count, 2)).astype(np.float32),
    }
    teacher = (3 * generator.standard_normal((count, 4))).astype(np.float32)
    return Batch(inputs, generator.integers(0, 4, count), teacher, count)


def pictures(seed: int = 0, count: int = 8) -> Batch:
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((count, 6)).astype(np.float32)
    return Batch({"x": images}, generator.integers(0, 4, count), None, count)


LOSSES = {
    "labels": Loss(),
    "both": Loss(distillation=0.9, temperature=4.0),
    "teacher alone": Loss(Task.MSE, distillation=1.0),
}


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("count", "accumulate", "loss"),
    [
        (1, 2, "labels"),
        (1, 3, "both"),
        (2, 1, "labels"),
        (2, 2, "both"),
        (3, 1, "both"),
        (3, 3, "teacher alone"),
    ],
)
def test_parts_take_the_step_of_the_whole_batch_when_it_does_not_divide_evenly(
    count: int, accumulate: int, loss: str
) -> None:
    with (
        OrtTrainer(several_inputs(), loss=LOSSES[loss], batch_size=BATCH) as whole,
        OrtTrainer(
            several_inputs(), loss=LOSSES[loss], batch_size=BATCH, workers=count, accumulate=accumulate
        ) as parts,
    ):
        assert parts.workers == count
        for step in range(4):
            one, other = whole.backward(batch(step)), parts.backward(batch(step))
            assert other == pytest.approx(one, rel=1e-5)
            np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-4, atol=1e-5)
            for name, gradient in whole.gradients.items():
                np.testing.assert_allclose(parts.gradients[name], gradient, rtol=1e-4, atol=2e-6, err_msg=name)
            whole.update(1e-3)
            parts.update(1e-3)
            # Adam's first steps have the size of the learning rate whatever the gradient: rounding may turn one.
            for name, weight in whole.weights.items():
                np.testing.assert_allclose(parts.weights[name], weight, atol=1e-4, err_msg=name)
            parts.restore(whole.snapshot())


@pytest.mark.slow
@needs_training
def test_a_weight_written_between_steps_counts_in_the_workers_too() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2) as trainer:
        trainer.backward(pictures())
        trainer.weights["w2"][...] = 0.0
        trainer.weights["b2"][...] = [1.0, 2.0, 3.0, 4.0]
        trainer.backward(pictures())
        np.testing.assert_allclose(trainer.logits, np.tile([1.0, 2.0, 3.0, 4.0], (8, 1)), rtol=1e-6)


@pytest.mark.slow
@needs_training
def test_equal_runs_of_equal_workers_give_equal_bits() -> None:
    results = []
    for _ in range(2):
        with OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2, accumulate=2) as trainer:
            for step in range(5):
                trainer.backward(pictures(step))
                trainer.update(1e-2)
            results.append(trainer.snapshot())
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array)


@needs_training
def test_weights_stay_readable_when_the_trainer_is_closed() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2) as trainer:
        before = trainer.snapshot()
        running = trainer._step._pool.processes if trainer._step._pool else ()
    assert len(running) == 1
    assert not alive(running[0])
    np.testing.assert_array_equal(trainer.weights["w1"], before["w1"])


@pytest.mark.slow
@needs_training
@needs_signals
def test_a_killed_worker_ends_the_step_at_once_and_leaves_the_weights() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=3) as trainer:
        trainer.backward(pictures())
        pool = trainer._step._pool
        assert pool is not None
        before, (first, second) = trainer.snapshot(), pool.processes
        os.kill(second, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(WorkerError, match=rf"worker 3 of 3 \(process {second}\).*SIGKILL.*--workers 1"):
            trainer.backward(pictures())
        assert time.monotonic() - start < 5
        assert not alive(first)
        for name, array in before.items():
            np.testing.assert_array_equal(trainer.weights[name], array)
        with pytest.raises(WorkerError, match="none, they were ended"):
            trainer.backward(pictures())


@pytest.mark.slow
@needs_training
@needs_signals
def test_a_stopped_worker_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STEP_PATIENCE", 0.5)
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2) as trainer:
        trainer.backward(pictures())
        pool = trainer._step._pool
        assert pool is not None
        pool._slowest = 0.0  # on a busy machine the first step may take long
        (stopped,) = pool.processes
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(WorkerError, match=r"expected an answer, found none within"):
            trainer.backward(pictures())
        assert not alive(stopped)


@needs_training
@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import sys; sys.exit('no room in the inn')", "exit status 1 (no room in the inn)"),
        ("import os; os.write(1, b'failed MemoryError: too much')", "found MemoryError: too much"),
    ],
)
def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, program: str, found: str) -> None:
    monkeypatch.setattr(workers, "PROGRAM", ("-c", program))
    with pytest.raises(WorkerError, match=re.escape(found)):
        OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2)


@needs_training
def test_a_worker_without_an_interpreter_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(WorkerError, match="a process that starts"):
        OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2)


@pytest.mark.slow
@needs_training
def test_an_error_inside_a_worker_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (
        "import sys; from onnxadmm.train.workers import child, parts\n"
        "def run(self, batch): raise ValueError('the moon is full')\n"
        "parts.Share.run = run\n"
        "sys.exit(child.main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))"
    )
    monkeypatch.setattr(workers, "PROGRAM", ("-c", broken))
    with (
        OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2) as trainer,
        pytest.raises(WorkerError, match="ValueError: the moon is full"),
    ):
        trainer.backward(pictures())


@needs_training
def test_shared_memory_that_does_not_fit_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxadmm.train.workers.memory._unlinked_file", full)
    with pytest.raises(WorkerError, match=r"No space left on device.*--workers 1"):
        OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2)


@pytest.mark.slow
@needs_training
@needs_signals
def test_memory_is_an_unlinked_file_where_the_system_has_none_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared_memory, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        OrtTrainer(mlp(), loss=Loss(), batch_size=8) as one,
        OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=2) as two,
    ):
        assert list(tmp_path.iterdir()) == []
        assert two.backward(pictures()) == pytest.approx(one.backward(pictures()), rel=1e-5)
        np.testing.assert_allclose(two.gradients["w1"], one.gradients["w1"], rtol=1e-4, atol=1e-6)


PARENT = """
import sys, time
from onnxadmm.train.losses import Loss
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import mlp
from tests.train.workers.test_pool import pictures
trainer = OrtTrainer(mlp(), loss=Loss(), batch_size=8, workers=3)
trainer.backward(pictures())
print(*trainer._step._pool.processes, flush=True)
time.sleep(100)
"""


@pytest.mark.slow
@needs_training
@needs_signals
def test_workers_end_and_leave_nothing_when_their_parent_is_killed(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(alive, children))
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, children)))
    # The last is a file that newer onnxruntimes leave when they are imported.
    assert {path.name for path in tmp_path.iterdir()} <= {".ses"}


@pytest.mark.slow
@needs_training
@needs_signals
def test_ctrl_c_is_left_to_the_parent(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert stderr.count(b"KeyboardInterrupt") == 1
        wait_for(lambda: not any(map(alive, children)))


@pytest.mark.slow
@needs_training
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_compression_whose_worker_is_killed_ends_with_status_1_and_says_how_to_go_on(
    digits: DemoFiles, tmp_path: Path
) -> None:
    words = ["compress", digits.model, "--data", digits.training, "--params", "0.5", "--out", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxadmm.cli", *map(str, words), "--workers", "2", "--epochs", "300"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            wait_for(lambda: len(workers_of(process.pid)) == 1, seconds=60)
            (worker,) = workers_of(process.pid)
            os.kill(worker, signal.SIGKILL)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 1
    sentence = " ".join(stderr.split())
    assert f"Error: worker 2 of 2 (process {worker}): expected an answer, found a kill by the system" in sentence
    assert "--resume continues from the checkpoint; --workers 1 runs without them." in sentence
    assert not (tmp_path / "out" / "model.onnx").exists()


def workers_of(process: int) -> list[int]:
    """Identifiers of a process's children that are workers and have begun."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process
            if ours and b"onnxadmm.train.workers.child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def parent(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group that trains with two workers and sleeps, with an empty folder for temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**environment(), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits for its end to be read does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
