"""Several files under their final names: whatever fails in between, the old state stands there or the new one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxadmm.errors import OutputError
from onnxadmm.files import put_in_place, refuse_existing, sweep
from onnxadmm.output import OutputFile, OutputFolder

Publish = Callable[[Path], None]
OLD = {name: f"old {name}" for name in ("history.jsonl", "model.onnx", "model.onnx.data", "notes.txt", "plan.json")}


def _fill(folder: Path) -> None:
    for name, text in OLD.items():
        (folder / name).write_text(text)


def _state(folder: Path) -> dict[str, str]:
    """The files of a folder, without those in a subfolder and journals."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.endswith(".journal.onnxadmm")]
    return {path.name: path.read_text() for path in files}


def _publish_folder(path: Path) -> None:
    with OutputFolder(path, force=True) as folder:
        for name in ("history.jsonl", "model.onnx", "plan.json", "report.json"):
            (folder.work / name).write_text(f"new {name}")
        folder.publish()


def _publish_file(path: Path) -> None:
    with OutputFile(path / "model.onnx", force=True) as output:
        for name in ("model.onnx", "model.onnx.data"):
            output.work.with_name(name).write_text(f"new {name}")
        output.publish()


PUBLISHED: dict[Publish, dict[str, str]] = {
    # The older result's external data go with its model.
    _publish_folder: {"notes.txt": "old notes.txt"}
    | {name: f"new {name}" for name in ("history.jsonl", "model.onnx", "plan.json", "report.json")},
    _publish_file: OLD | {name: f"new {name}" for name in ("model.onnx", "model.onnx.data")},
}


class _FailingDisk:
    """Lets renames through, except for one by its number, or all from one on."""

    def __init__(self, failing: int, *, for_good: bool = False) -> None:
        self.calls = 0
        self._failing = failing
        self._for_good = for_good
        self._replace = os.replace

    def replace(self, source: str | Path, target: str | Path) -> None:
        self.calls += 1
        if self.calls == self._failing or (self._for_good and self.calls > self._failing):
            raise OSError(errno.EIO, "Input/output error")
        self._replace(source, target)


@pytest.mark.parametrize("publish", PUBLISHED)
def test_the_old_state_stands_after_a_failure_at_any_rename_and_the_new_one_without(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path)
    # Each of the files that stand there steps aside, each of the new ones takes its name.
    renames = 4 + 4 if publish is _publish_folder else 2 + 2
    for failing in range(1, renames + 1):
        monkeypatch.setattr(os, "replace", _FailingDisk(failing).replace)
        with pytest.raises(OutputError, match="Input/output error"):
            publish(tmp_path)
        monkeypatch.undo()
        assert _state(tmp_path) == OLD
    monkeypatch.setattr(os, "replace", _FailingDisk(renames + 1).replace)
    publish(tmp_path)
    assert _state(tmp_path) == PUBLISHED[publish]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("publish", PUBLISHED)
def test_what_cannot_be_deleted_at_the_end_does_not_undo_the_new_state(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    _fill(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        publish(tmp_path)
    visible = {name: text for name, text in _state(tmp_path).items() if not name.startswith(".")}
    assert visible == PUBLISHED[publish]


def test_nothing_is_lost_when_the_disk_fails_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path)
    (tmp_path / "new").write_text("new")
    for failing in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _FailingDisk(failing, for_good=True).replace)
            moves = {tmp_path / "new": tmp_path / "model.onnx"}
            with pytest.raises(OutputError):
                put_in_place(moves, gone=[tmp_path / "model.onnx.data"])
        found = _state(tmp_path)
        assert sorted(found.values()) == sorted([*OLD.values(), "new"])
        # Whoever writes here next brings back what stepped aside.
        sweep(tmp_path)
        assert _state(tmp_path) == OLD | {"new": "new"}
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_one_new_file_replaces_the_old_one_in_a_single_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "plan.json").write_text("old")
    disk = _FailingDisk(0)
    monkeypatch.setattr(os, "replace", disk.replace)
    put_in_place({tmp_path / "new": tmp_path / "plan.json"}, gone=[tmp_path / "missing"])
    assert disk.calls == 1
    assert _state(tmp_path) == {"plan.json": "new"}


def test_a_name_in_use_is_refused_unless_forced_and_a_folder_always(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("old")
    refuse_existing(tmp_path / "new.json", force=False)
    refuse_existing(tmp_path / "plan.json", force=True)
    with pytest.raises(OutputError, match="an existing one"):
        refuse_existing(tmp_path / "plan.json", force=False)
    with pytest.raises(OutputError, match="a directory"):
        refuse_existing(tmp_path, force=True)
