"""Processes that publish files and are killed at every rename: ``python -m tests.hostile.kills FOLDER WAY``.

WAY is ``folder`` (an out folder) or ``file`` (a model and its external data). Each process dies by SIGKILL right before
or right behind one rename; then the next call looks after the folder. Prints every state that is neither the old one
nor the new one, and in the end how many were killed.
"""

import os
import signal
import sys
from pathlib import Path

from onnxadmm.output import OutputFile, OutputFolder

FOLDER_NAMES = ("history.jsonl", "plan.json", "report.json", "model.onnx")
FILE_NAMES = ("model.onnx", "model.onnx.data")


def publish(path: Path, way: str, text: str) -> None:
    """Put files in place whose contents are a text and their name."""
    if way == "folder":
        with OutputFolder(path, force=True, resume=(path / "unfinished" / "checkpoint.npz").exists()) as folder:
            folder.begin()
            folder.checkpoint.write_text("so far")
            for name in FOLDER_NAMES:
                (folder.work / name).write_text(f"{text} {name}")
            folder.publish()
    else:
        with OutputFile(path / "model.onnx", force=True) as output:
            for name in FILE_NAMES:
                output.work.with_name(name).write_text(f"{text} {name}")
            output.publish()


class Renames:
    """Counts renames, and dies at one of them."""

    def __init__(self, moment: int) -> None:
        self.count = 0
        self._moment = moment
        self._replace = os.replace
        os.replace = self.replace  # type: ignore[assignment]  # as it is called here

    def replace(self, source: str | Path, target: str | Path) -> None:
        """Rename."""
        self.count += 1
        if self.count == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)
        self._replace(source, target)
        if self.count == -self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_at(path: Path, way: str, moment: int, text: str) -> bool:
    """Publish in a fork of this process that dies at a moment; False when it lived through."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            Renames(moment)
            publish(path, way, text)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{way} at {moment}: status {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def visible(path: Path) -> dict[str, str]:
    """The files of a folder that are not hidden, with their contents."""
    return {file.name: file.read_text() for file in path.iterdir() if file.is_file() and not file.name.startswith(".")}


def main(path: Path, way: str) -> int:
    """Kill at every rename, let the next call finish, and print each state that is neither old nor new."""
    names = FOLDER_NAMES if way == "folder" else FILE_NAMES
    old, new = ({name: f"{text} {name}" for name in names} for text in ("old", "new"))
    publish(path, way, "old")
    kills = 0
    for sign in (1, -1):
        for moment in range(1, 100):
            if not killed_at(path, way, sign * moment, "new"):
                break
            kills += 1
            # What the next call finds, once it has looked after the folder and is ended before it publishes.
            child = os.fork()
            if child == 0:
                try:
                    if way == "folder":
                        resume = (path / "unfinished" / "checkpoint.npz").exists()
                        with OutputFolder(path, force=True, resume=resume):
                            pass
                    else:
                        with OutputFile(path / "model.onnx", force=True):
                            pass
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            found = visible(path)
            if found not in (old, new):
                print(f"{way}, rename {sign * moment}: {found}")
            hidden = sorted(file.name for file in path.iterdir() if file.name.startswith("."))
            if hidden:
                print(f"{way}, rename {sign * moment}: left {hidden}")
            publish(path, way, "old")
            left = sorted(file.name for file in path.iterdir() if file.name not in names)
            if visible(path) != old or left:
                print(f"{way}, rename {sign * moment}: then {visible(path)} and {left}")
        publish(path, way, "old")
    print(f"{kills} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
