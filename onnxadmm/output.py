"""The output folder: files appear under their names when the run has succeeded, the model last."""

import shutil
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from onnxadmm.errors import OutputError
from onnxadmm.files import cannot_write, put_in_place, refuse_existing, refuse_folder

if sys.platform != "win32":
    import fcntl

MODEL_NAME: Final = "model.onnx"
PLAN_NAME: Final = "plan.json"
UNFINISHED_NAME: Final = "unfinished"
CHECKPOINT_NAME: Final = "checkpoint.npz"
HISTORY_NAME: Final = "history.jsonl"
_LOCK_NAME: Final = ".lock"
_NAMES: Final = (HISTORY_NAME, PLAN_NAME, "report.json", "report.md", "model.onnx.data", MODEL_NAME)


def names_of_results(folder: Path) -> tuple[str, ...]:
    """Return which files of a result are in a folder, the model first."""
    return tuple(name for name in reversed(_NAMES) if (folder / name).exists())


class OutputFolder:
    """Collects files in ``unfinished``, a folder of its own in the final one.

    Used as a context: ``work`` is where files are written, from ``begin`` on; ``publish`` moves them under their
    final names. A run that does not come to that leaves the final folder as it was, but for ``unfinished`` with the
    checkpoint and the history, if there is a checkpoint; ``resume`` is for going on from there.

    Raises:
        OutputError: the folder holds a result or an unfinished run already and ``force`` is False, or it cannot be
            written; or there is nothing to resume, or another run is at work in it.
    """

    def __init__(self, path: str | Path, *, force: bool, resume: bool = False) -> None:
        self.path = Path(path)
        self.work = self.path / UNFINISHED_NAME
        self.checkpoint = self.work / CHECKPOINT_NAME
        self._resume = resume
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(str(path), expected="a folder", found="a file", way_out="choose another name")
        folders = [name for name in _NAMES if (self.path / name).is_dir()]
        if folders:
            raise OutputError(
                str(path), expected="room for files", found=f"a folder {folders[0]}", way_out="choose another folder"
            )
        present = [name for name in _NAMES if (self.path / name).exists()]
        self._refuse_work(finished=bool(present), force=force)
        if present and not force:
            raise OutputError(
                str(path),
                expected="a folder without a result",
                found=", ".join(present),
                way_out="choose another folder, or use --force to replace it",
            )
        self._created: list[Path] = []
        self._published = False
        base = self.work
        try:
            missing = [folder for folder in (base, *base.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                self._created.append(folder)
        except OSError as error:
            self._remove_created()
            raise cannot_write(path, error, expected="a folder that can be written") from error
        self._lock = _lock(self.work / _LOCK_NAME)

    def begin(self) -> None:
        """Clear away what an earlier run left, except for the checkpoint that is resumed."""
        for file in self.work.iterdir():
            if file.name != _LOCK_NAME and not (self._resume and file == self.checkpoint):
                file.unlink()

    def publish(self) -> None:
        """Move every file under its final name, the model last; what stood there of an older result goes."""
        moves = {self.work / name: self.path / name for name in _NAMES if (self.work / name).exists()}
        put_in_place(moves, gone=[self.path / name for name in _NAMES if self.work / name not in moves])
        self._published = True
        self._created.clear()

    def _refuse_work(self, *, finished: bool, force: bool) -> None:
        """Refuse an unfinished run that is to be neither resumed nor replaced, and none that is to be resumed."""
        files = {file.name for file in self.work.iterdir()} if self.work.is_dir() else set()
        foreign = [
            name for name in sorted(files - {CHECKPOINT_NAME, _LOCK_NAME, *_NAMES}) if not name.endswith(".part")
        ]
        if foreign or (self.work.exists() and not self.work.is_dir()):
            raise OutputError(
                str(self.work),
                expected="room for an unfinished run",
                found=foreign[0] if foreign else "a file",
                way_out="choose another folder",
            )
        if self._resume and CHECKPOINT_NAME not in files:
            raise OutputError(
                str(self.path),
                expected="an unfinished run to resume",
                found="a finished one" if finished else "none",
                way_out="leave out --resume" + (", or use --force instead to run it again" if finished else ""),
            )
        if CHECKPOINT_NAME in files and not (self._resume or force):
            raise OutputError(
                str(self.path),
                expected="a folder without an unfinished run",
                found=f"{UNFINISHED_NAME}/{CHECKPOINT_NAME}",
                way_out="continue it with --resume, or begin again with --force",
            )

    def _remove_created(self) -> None:
        with suppress(OSError):  # not empty: something of an older result is there
            for folder in reversed(self._created):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()
        if self._published or not self.checkpoint.exists():
            shutil.rmtree(self.work, ignore_errors=True)
            self._created = [folder for folder in self._created if folder != self.work]
            self._remove_created()
            return
        for file in self.work.iterdir():
            if file.name not in (CHECKPOINT_NAME, HISTORY_NAME):
                file.unlink()


def _lock(path: Path) -> IO[str]:
    """Open a file that no other process holds; it is held until it is closed, or its process ends in whatever way.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error, expected="a folder that can be written") from error
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise OutputError(
                str(path.parent.parent),
                expected="a folder that no other run is writing to",
                found="one at work",
                way_out="wait for it, or choose another folder",
            ) from error
        except OSError:
            pass  # a file system without locks
    return file


class OutputFile:
    """A model file that is written beside its final place, and put there when it is good.

    Used as a context: ``work`` is where to write, under the same name; ``publish`` moves it, external data first.

    Raises:
        OutputError: the name is that of a folder, or the folder it is in is missing or cannot be written.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self._path = path
        self._force = force
        refuse_folder(path)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
        except OSError as error:
            raise cannot_write(path, error, expected="a folder that can be written") from error
        # Also when the process ends in the middle of a native call, which runs no more of this code.
        self._clear = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.work = self._folder / path.name

    def publish(self) -> None:
        """Move what was written under its final name, all of it or nothing.

        Raises:
            OutputError: a file stands there and may not be replaced, its external data included, or it cannot be.
        """
        files = [file for file in self._folder.iterdir() if file != self.work]
        moves = {file: self._path.parent / file.name for file in [*files, self.work]}
        for final in moves.values():
            refuse_existing(final, force=self._force)
        put_in_place(moves)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
