"""SIGTERM and SIGHUP: whatever verb they meet clears away what it has begun, and its children end."""

import importlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onnxadmm.cli import main
from onnxadmm.demo import demo_files
from onnxadmm.errors import OutputError
from onnxadmm.interrupt import ending_on_sigterm
from onnxadmm.run.checkpoint import SCHEMA, Header, write_checkpoint
from onnxadmm.train.preflight import preflight
from tests.conftest import Command
from tests.processes import call

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")

ROOT = Path(__file__).resolve().parents[2]
#: What is run, and the place in it at which the signal comes: a function that is called then.
_VERBS = {
    "plan": ("onnxadmm.planning.make_plan", ["plan", "MODEL", "-o", "OUT/plan.json", "--ratio", "0.3"]),
    "shrink": ("onnxadmm.surgery.require", ["shrink", "MODEL", "PLAN", "-o", "OUT/small.onnx"]),
    "bench": ("onnxadmm.bench.latency.time_in_turns", ["bench", "MODEL"]),
    "preflight": (
        "onnxadmm.run.trying.preflight",
        ["compress", "MODEL", "--data", "DATA", "--params", "0.5", "--out", "OUT/out"],
    ),
    "compress": (
        "onnxadmm.run.proving.shrink",
        ["compress", "MODEL", "--data", "DATA", "--params", "0.5", "--epochs", "1", "--out", "OUT/out"],
    ),
}


def _signalled(place: str, number: int, words: list[str]) -> int:
    """Run a verb that meets a signal at some place."""
    if place == "onnxadmm.run.trying.preflight":
        # The child is under way when the signal comes: it takes longer than this to import what it needs.
        real = preflight._run

        def run(*arguments: Any) -> Any:
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
            return real(*arguments)

        preflight._run = run
    else:
        module, _, name = place.rpartition(".")
        holder = importlib.import_module(module)

        def stop(*_: object, **__: object) -> None:
            os.kill(os.getpid(), number)
            time.sleep(30)

        getattr(holder, name)
        setattr(holder, name, stop)
    return main(words)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("verb", _VERBS)
def test_a_signal_ends_a_verb_and_leaves_nothing_but_a_checkpoint(
    verb: str, number: int, tmp_path: Path, command: Command
) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    files = demo_files()
    plan = tmp_path / "plan.json"
    assert command("plan", files.model, "-o", plan, "--ratio", "0.3").status == 0
    place, words = _VERBS[verb]
    known = {"MODEL": str(files.model), "PLAN": str(plan), "DATA": str(files.training)}
    filled = [known.get(word, word.replace("OUT", str(out))) for word in words]
    ran = call(_signalled, place, int(number), filled, temporary=temporary, timeout=300)
    assert ran.returncode == 128 + number, ran.stderr
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    # Where training was under way, what it has come to is kept.
    kept = {"out/unfinished/checkpoint.npz", "out/unfinished/history.jsonl"}
    assert left == (kept if verb == "compress" else set())
    assert list(temporary.iterdir()) == []
    assert not _processes_under(str(temporary))


def _processes_under(folder: str) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline") if sys.platform == "linux" else ():
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if folder.encode() in words:
            found.append(words.decode(errors="replace"))
    return found


def test_sighup_ends_a_block_as_sigterm_does_and_a_second_signal_does_not_disturb_it() -> None:
    cleared = []

    def clear_away() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleared.append(True)

    with pytest.raises(SystemExit) as ended, ending_on_sigterm():
        clear_away()
    assert ended.value.code == 129
    assert cleared
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_on_sigterm():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _full_disk() -> Iterator[None]:
    def full(_: object, *__: object, **___: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numpy.lib.format.write_array", full)
        yield


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_promises_only_what_was_kept(before: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    header = Header(SCHEMA, "0", "0", {}, (), {}, 1.0)
    if before:
        write_checkpoint(path, header, {})
    with _full_disk(), pytest.raises(OutputError, match="No space left") as caught:
        write_checkpoint(path, header, {})
    assert ("--resume" in str(caught.value)) == before
    assert [file.name for file in tmp_path.iterdir()] == (["checkpoint.npz"] if before else [])


def test_a_full_temporary_folder_is_a_sentence_and_status_2(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxadmm.surgery.find_groups", full)
    ran = command("inspect", "model.onnx")
    assert ran.status == 2
    said = f"Error: the output, or {tempfile.gettempdir()}: expected a file system with room and access, found No space"
    assert ran.stderr.startswith(said)
    assert "TMPDIR" in ran.stderr

    def greedy(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("onnxadmm.surgery.find_groups", greedy)
    ran = command("inspect", "model.onnx")
    assert (ran.status, ran.stderr.split(":")[1]) == (2, " memory")
