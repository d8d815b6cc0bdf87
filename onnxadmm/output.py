"""The output folder: files appear under their names when the run has succeeded, the model last."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from onnxadmm.errors import OutputError
from onnxadmm.files import cannot_write, put_in_place, refuse_existing, refuse_folder

MODEL_NAME: Final = "model.onnx"
PLAN_NAME: Final = "plan.json"
CHECKPOINT_NAME: Final = "checkpoint.npz"
_NAMES: Final = (CHECKPOINT_NAME, "history.jsonl", PLAN_NAME, "report.json", "report.md", "model.onnx.data", MODEL_NAME)


class OutputFolder:
    """Collects files in a folder of its own beside the final one.

    Used as a context: ``work`` is where files are written; ``publish`` moves them under their final names. A run
    that ends in an error leaves the final folder as it was.

    Raises:
        OutputError: the folder holds a result already and ``force`` is False, or it cannot be written.
    """

    def __init__(self, path: str | Path, *, force: bool) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(str(path), expected="a folder", found="a file", way_out="choose another name")
        folders = [name for name in _NAMES if (self.path / name).is_dir()]
        if folders:
            raise OutputError(
                str(path), expected="room for files", found=f"a folder {folders[0]}", way_out="choose another folder"
            )
        present = [name for name in _NAMES if (self.path / name).exists()]
        if present and not force:
            raise OutputError(
                str(path),
                expected="a folder without a result",
                found=", ".join(present),
                way_out="choose another folder, or use --force to replace it",
            )
        self._created: list[Path] = []
        base = self.path
        try:
            missing = [folder for folder in (base, *base.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                self._created.append(folder)
            self.work = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.path))
        except OSError as error:
            self._remove_created()
            raise cannot_write(path, error, expected="a folder that can be written") from error

    def publish(self) -> None:
        """Move every file under its final name, the model last; what stood there of an older result goes."""
        moves = {self.work / name: self.path / name for name in _NAMES if (self.work / name).exists()}
        put_in_place(moves, gone=[self.path / name for name in _NAMES if self.work / name not in moves])
        self._created.clear()

    def keep_last_good_state(self) -> tuple[Path, ...]:
        """Keep checkpoint and history, which is what a run that diverged leaves behind; return where they are.

        Beside an older result they get names of their own, so that two runs are not taken for one.
        """
        prefix = "diverged-" if (self.path / MODEL_NAME).exists() else ""
        names = [name for name in (CHECKPOINT_NAME, "history.jsonl") if (self.work / name).exists()]
        kept = {self.work / name: self.path / f"{prefix}{name}" for name in names}
        put_in_place(kept)
        self._created.clear()
        return tuple(kept.values())

    def _remove_created(self) -> None:
        with suppress(OSError):  # not empty: something of an older result is there
            for folder in reversed(self._created):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self._remove_created()


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
        shutil.rmtree(self._folder, ignore_errors=True)
