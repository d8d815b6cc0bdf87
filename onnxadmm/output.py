"""The output folder: files appear under their names when the run has succeeded, the model last."""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from onnxadmm.errors import OutputError
from onnxadmm.files import (
    HIDDEN,
    cannot_write,
    discard,
    hold,
    put_in_place,
    refuse_existing,
    refuse_folder,
    refuse_input,
    sweep,
)

MODEL_NAME: Final = "model.onnx"
#: The result in bytes, and with weights in 16 bits, where that was asked for.
INT8_NAME: Final = "model.int8.onnx"
FP16_NAME: Final = "model.fp16.onnx"
PLAN_NAME: Final = "plan.json"
UNFINISHED_NAME: Final = "unfinished"
CHECKPOINT_NAME: Final = "checkpoint.npz"
HISTORY_NAME: Final = "history.jsonl"
PAGE_NAME: Final = "report.html"
_LOCK_NAME: Final = ".lock"
_NAMES: Final = (
    *(HISTORY_NAME, PLAN_NAME, "report.json", "report.md", PAGE_NAME),
    *(f"{FP16_NAME}.data", FP16_NAME, INT8_NAME, f"{MODEL_NAME}.data", MODEL_NAME),
)


def names_of_results(folder: Path) -> tuple[str, ...]:
    """Return which files of a result are in a folder, the model first."""
    return tuple(name for name in reversed(_NAMES) if (folder / name).exists())


class OutputFolder:
    """Collects files in ``unfinished``, a folder of its own in the final one.

    Used as a context: ``work`` is where files are written, from ``begin`` on; ``publish`` moves them under their
    final names. A run that does not come to that leaves the final folder as it was, but for ``unfinished`` with the
    checkpoint and the history, if there is a checkpoint; ``resume`` is for going on from there.

    Args:
        path: the final folder.
        force: replace an older result, or an unfinished run.
        resume: go on from the checkpoint in it.
        inputs: what the run reads; paths among it are never written over.

    Raises:
        OutputError: the folder holds a result or an unfinished run already and ``force`` is False, is named like a
            model file, cannot be written, or would take the place of an input; or there is nothing to resume, or
            another run is at work in it.
    """

    def __init__(self, path: str | Path, *, force: bool, resume: bool = False, inputs: Sequence[object] = ()) -> None:
        self.path = Path(path)
        self.work = self.path / UNFINISHED_NAME
        self.checkpoint = self.work / CHECKPOINT_NAME
        self._resume = resume
        sweep(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(str(path), expected="a folder", found="a file", way_out="choose another name")
        if self.path.suffix == ".onnx" and not self.path.exists():
            raise OutputError(
                str(path),
                expected="the name of a folder for the model, its plan and its report",
                found="that of a model file",
                way_out=f"name the folder {self.path.with_suffix('')}; the model in it is {MODEL_NAME}",
            )
        folders = [name for name in _NAMES if (self.path / name).is_dir()]
        if folders:
            raise OutputError(
                str(path), expected="room for files", found=f"a folder {folders[0]}", way_out="choose another folder"
            )
        for name in _NAMES:
            refuse_input(self.path / name, *_paths(inputs))
        self._found = {name: _identity(self.path / name) for name in _NAMES}
        present = [name for name in _NAMES if self._found[name] is not None]
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
            if _is_ours(file.name) and file.name != _LOCK_NAME and not (self._resume and file == self.checkpoint):
                file.unlink()

    def publish(self) -> None:
        """Move every file under its final name, the model last; what stood there of an older result goes.

        Raises:
            OutputError: a file cannot be moved, or one of these names was taken by somebody else during the run.
        """
        changed = [name for name in _NAMES if _identity(self.path / name) not in (None, self._found[name])]
        if changed:
            raise OutputError(
                str(self.path / changed[0]),
                expected="what was there when the run began",
                found="a file that appeared during the run",
                way_out="move it away, and finish with --resume",
            )
        moves = {self.work / name: self.path / name for name in _NAMES if (self.work / name).exists()}
        put_in_place(moves, gone=[self.path / name for name in _NAMES if self.work / name not in moves])
        self._published = True
        self._created.clear()

    def _refuse_work(self, *, finished: bool, force: bool) -> None:
        """Refuse an unfinished run that is to be neither resumed nor replaced, and none that is to be resumed."""
        linked = self.work.is_symlink()  # what it points at is not this folder's
        files = {file.name for file in self.work.iterdir()} if self.work.is_dir() and not linked else set()
        foreign = [name for name in sorted(files) if not _is_ours(name)]
        if foreign or linked or (self.work.exists() and not self.work.is_dir()):
            raise OutputError(
                str(self.work),
                expected="room for an unfinished run",
                found=foreign[0] if foreign else "a link" if linked else "a file",
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
            self._clear(keep=())
            with suppress(OSError):  # not empty: somebody else has put something there
                self.work.rmdir()
            self._created = [folder for folder in self._created if folder != self.work]
            self._remove_created()
            return
        self._clear(keep=(CHECKPOINT_NAME, HISTORY_NAME))

    def _clear(self, *, keep: Collection[str]) -> None:
        """Remove from ``unfinished`` what runs put there."""
        for file in self.work.iterdir():
            if _is_ours(file.name) and file.name not in keep:
                discard(file)


def _paths(inputs: Sequence[object]) -> list[str | Path]:
    """The paths among what a run reads; a text may name two, with a comma in between."""
    paths: list[str | Path] = [item for item in inputs if isinstance(item, str | Path)]
    return paths + [part.strip() for item in paths if isinstance(item, str) for part in item.split(",")]


def _is_ours(name: str) -> bool:
    """Tell whether a name in ``unfinished`` is one that runs use."""
    return name in (CHECKPOINT_NAME, _LOCK_NAME, *_NAMES) or name.endswith((".part", HIDDEN))


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from another that takes its name; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _lock(path: Path) -> IO[str]:
    """Open a file that no other process holds; it is held until it is closed, or its process ends in whatever way.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error, expected="a folder that can be written") from error
    if not hold(file):
        file.close()
        raise OutputError(
            str(path.parent.parent),
            expected="a folder that no other run is writing to",
            found="one at work",
            way_out="wait for it, or choose another folder",
        )
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
        sweep(path.parent)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=".partial-", suffix=HIDDEN, dir=path.parent))
            self._held = None if sys.platform == "win32" else os.open(self._folder, os.O_RDONLY)
            if self._held is not None:
                hold(self._held)
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
        if self._held is not None:
            os.close(self._held)
