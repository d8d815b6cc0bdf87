"""Killed processes: files are old or new as a whole, the next call clears up, and no child outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxadmm.errors import OutputError
from onnxadmm.files import HIDDEN, hidden_beside, hold, refuse_input, sweep
from onnxadmm.output import OutputFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor locks of this kind")

ROOT = Path(__file__).resolve().parents[2]


def _module(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(("way", "moments"), [("folder", 16), ("file", 8)])
def test_a_kill_at_any_rename_leaves_the_old_files_or_the_new_ones(way: str, moments: int, tmp_path: Path) -> None:
    ran = _module("tests.hostile.kills", tmp_path, way)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{moments} kills"], ran.stdout


@pytest.mark.slow
def test_runs_that_are_killed_at_random_moments_are_taken_up_again(kills: int) -> None:
    ran = _module("tests.hostile.runs", "--count", kills)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == f"{kills} runs killed, 0 not taken up as they should"


def test_hidden_files_of_a_dead_process_are_swept_away_and_no_others(tmp_path: Path) -> None:
    stale, alive = (hidden_beside(tmp_path / name) for name in ("stale", "alive"))
    stale.write_text("x")
    link = tmp_path / f".link{HIDDEN}"
    link.symlink_to(tmp_path / "mine")
    for name in ("mine", ".mine", ".mine.part", f"mine{HIDDEN}", f".mine.old{HIDDEN}"):
        (tmp_path / name).write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    with alive.open("x") as file:
        assert hold(file)
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == before - {stale.name} | {alive.name}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before - {stale.name}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"half a li",
        b"[]\n",
        b'{"old": {"../mine": "x"}, "new": {}}\n',
        b'{"old": {}, "new": {"/etc/passwd": "x"}}\n',
        b'{"old": {"a": "../../b"}, "new": {}}\ndone\n',
    ],
)
def test_a_journal_that_is_none_moves_nothing(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "x").write_text("outside")
    (tmp_path / "mine").write_text("mine")
    (folder / f".0.journal{HIDDEN}").write_bytes(content)
    sweep(folder)
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "x").read_text() == "outside"


def test_a_link_in_place_of_the_unfinished_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "unfinished").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for force in (False, True):
        with pytest.raises(OutputError, match="room for an unfinished run, found a link"):
            OutputFolder(tmp_path / "out", force=force)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_appears_in_the_folder_during_a_run_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutputFolder(out, force=True) as folder:
        folder.begin()
        (folder.work / "model.onnx").write_text("new")
        (folder.work / "novel.txt").write_text("mine")
        folder.publish()
    assert (out / "unfinished" / "novel.txt").read_text() == "mine"
    assert (out / "model.onnx").read_text() == "new"


@pytest.mark.parametrize("before", [False, True])
def test_a_result_that_appeared_during_the_run_is_not_replaced(before: bool, tmp_path: Path) -> None:
    if before:
        (tmp_path / "model.onnx").write_text("old")
    with OutputFolder(tmp_path, force=True) as folder:
        folder.begin()
        folder.checkpoint.write_text("so far")
        (folder.work / "model.onnx").write_text("new")
        (tmp_path / "model.onnx").write_text("somebody else's")
        with pytest.raises(OutputError, match="a file that appeared during the run"):
            folder.publish()
    assert (tmp_path / "model.onnx").read_text() == "somebody else's"
    assert (tmp_path / "unfinished" / "checkpoint.npz").exists()


@pytest.mark.parametrize("how", ["the same", "a link", "a hard link", "through a link to the folder", "with dots"])
def test_an_output_that_is_an_input_is_refused_under_any_name(how: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    model = tmp_path / "folder" / "model.onnx"
    model.write_text("precious")
    other = tmp_path / "other.onnx"
    if how == "the same":
        other = model
    elif how == "a link":
        other.symlink_to(model)
    elif how == "a hard link":
        os.link(model, other)
    elif how == "with dots":
        other = tmp_path / "folder" / ".." / "folder" / "model.onnx"
    else:
        (tmp_path / "link").symlink_to(tmp_path / "folder", target_is_directory=True)
        other = tmp_path / "link" / "model.onnx"
    with pytest.raises(OutputError, match="an output that is no input"):
        refuse_input(other, model)
    refuse_input(tmp_path / "new.onnx", model, None, 3)


def test_an_out_folder_in_which_an_input_lies_is_refused_with_force_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("precious")
    with pytest.raises(OutputError, match="an output that is no input"):
        OutputFolder(tmp_path, force=True, inputs=(tmp_path / "model.onnx",))
    with pytest.raises(OutputError, match="an output that is no input"):
        OutputFolder(tmp_path, force=True, inputs=(f"nowhere,{tmp_path / 'model.onnx'}",))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


_CHILD = """
import time
from onnxadmm.child_process import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
_PARENT = f"""
import os, subprocess, time
from onnxadmm.child_process import command, environment
child = subprocess.Popen(command("-c", {_CHILD!r}), env=environment(), stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def _alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what lives is read from /proc")
def test_a_child_ends_within_two_seconds_of_its_parent_however_that_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _alive(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 2.0
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _alive(child)
