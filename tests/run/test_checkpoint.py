"""The checkpoint file: read as written, written seldom and as a whole, and a signal that leaves time for it."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from onnxadmm.errors import OutputError
from onnxadmm.interrupt import ending_on_sigterm
from onnxadmm.progress import Iteration, Residuals
from onnxadmm.run import checkpoint
from onnxadmm.run.checkpoint import (
    SCHEMA,
    Checkpoints,
    Header,
    options_as_text,
    read_checkpoint,
    write_checkpoint,
)


def header(loss: float = 0.1) -> Header:
    row = Iteration("prune", 1, 0.125, loss, None, 1e-3, Residuals(0.1, 1 / 3, 1e-3), None, 3e6, float("inf"), 12)
    return Header(SCHEMA, "ab" * 32, "cd" * 32, {"--learning-rate": "0.001"}, (row,), {"prune": 1 / 7}, 0.25)


class Clock:
    """Time that passes when it is told to, and while something is written."""

    def __init__(self, writing: float = 0.0) -> None:
        self.now = 0.0
        self.written: list[float] = []
        self._writing = writing

    def __call__(self) -> float:
        return self.now

    def write(self, path: Path, header: Header, state: object) -> None:
        self.written.append(self.now)
        self.now += self._writing


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = {
        "weights/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "weights/a.npy": np.array([np.nan, np.inf, -0.0]),
        "weights/model/layer.0/Conv:0 ü": np.zeros((0, 3), np.float32),
        "keep": np.array([True, False]),
        "steps": np.array(3.0),
        "weights/columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    write_checkpoint(tmp_path / "checkpoint.npz", header(), state)
    found, arrays = read_checkpoint(tmp_path / "checkpoint.npz")
    assert found == header()
    assert arrays.keys() == state.keys()
    for name, array in state.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]
    with np.load(tmp_path / "checkpoint.npz") as archive:
        np.testing.assert_array_equal(archive["weights/a"], state["weights/a"])


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.npz"
    write_checkpoint(path, header(), {"x": np.zeros(3)})
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OutputError, match=r"No space left on device; make room, and continue .* with --resume"):
        write_checkpoint(path, header(), {"x": np.ones(3)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


@pytest.mark.parametrize(
    ("writing", "expected"),
    [pytest.param(0.0, [10.0, 20.0, 30.0, 40.0], id="quick"), pytest.param(1.0, [10.0, 31.0], id="slow")],
)
def test_writing_is_seldom_and_takes_a_twentieth_of_the_time(
    writing: float, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(writing)
    monkeypatch.setattr(checkpoint, "write_checkpoint", clock.write)
    checkpoints = Checkpoints(tmp_path / "checkpoint.npz", header, clock=clock)
    while clock.now < 45:
        checkpoints.keep({})
        clock.now += 1
    assert clock.written == expected


def test_what_was_only_remembered_is_written_in_the_end_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoints = Checkpoints(path, header)
    live = np.zeros(3)
    checkpoints.keep({"x": live})
    live += 1  # half of the next iteration
    assert not path.exists()
    checkpoints.flush()
    np.testing.assert_array_equal(read_checkpoint(path)[1]["x"], np.zeros(3))
    path.unlink()
    checkpoints.flush()
    assert not path.exists(), "written once"


def test_options_differ_when_their_values_do() -> None:
    assert options_as_text({"learning_rate": 0.001, "mean": None}) == {"--learning-rate": "0.001", "--mean": "none"}
    one, other = (options_as_text({"mean": mean}) for mean in ([0.1, 0.2], np.array([0.1, 0.2])))
    assert one == other != options_as_text({"mean": [0.1]})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process could handle")
def test_sigterm_ends_the_block_and_is_what_it_was_afterwards() -> None:
    with pytest.raises(SystemExit) as ended, ending_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with ending_on_sigterm():
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failed == [], "only the main thread may set handlers"
