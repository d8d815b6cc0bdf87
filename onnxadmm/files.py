"""Files under their final names: never half of one, and of several all or none, also after a ``kill -9``.

Whatever is written stands first under a hidden name that ends in ``.onnxadmm``, and is locked while its process lives.
Several files that belong together are put in place by a journal beside them: until it says ``done`` the old state is
the one that counts, then the new one. ``sweep`` ends what a killed process has begun, and removes what it left behind.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Final

from onnxadmm.errors import OutputError

if sys.platform != "win32":
    import fcntl

#: How every hidden name of this package ends; nothing else is ever swept away.
HIDDEN: Final = ".onnxadmm"
_JOURNAL: Final = ".journal"
_OLD: Final = ".old"


def hidden_beside(path: Path) -> Path:
    """Return a hidden name beside a file, under which it can be written; hold it with ``hold`` once it is open."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{HIDDEN}")


def hold(file: IO[bytes] | IO[str] | int) -> bool:
    """Lock an open file or folder until it is closed or its process ends; False when another process holds it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
    return True


def sweep(folder: Path) -> None:
    """Bring a folder into one of its whole states, if a process was killed in it, and remove what that one left."""
    if sys.platform == "win32":
        return  # without locks nobody knows whose process is still alive
    with suppress(OSError):
        hidden = sorted(path for path in folder.iterdir() if path.name.startswith(".") and path.name.endswith(HIDDEN))
        journals = [path for path in hidden if path.name.endswith(_JOURNAL + HIDDEN)]
        # Old files are a journal's: without it nobody knows what they are, and they stay.
        others = [path for path in hidden if path not in journals and not path.name.endswith(_OLD + HIDDEN)]
        for path in (*journals, *others):
            with suppress(OSError):
                _sweep(path)


def _sweep(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not hold(descriptor):
            return
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name.endswith(_JOURNAL + HIDDEN):
            _settle(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def put_in_place(renames: Mapping[Path, Path], *, gone: Collection[Path] = ()) -> None:
    """Rename files to their final names, all of them or none.

    What stands under a final name steps aside first, under a hidden name beside it, and is deleted at the end; when
    anything fails before that, the new names are freed again and the old files return to theirs. When the process is
    killed, ``sweep`` does either.

    Args:
        renames: new file to final name, all in one folder or folders inside of it; renamed in this order.
        gone: further files that are to disappear with the old state; missing ones are no error.

    Raises:
        OutputError: a file cannot be renamed; the old state is back.
    """
    if len(renames) == 1 and not any(map(os.path.lexists, gone)):
        ((new, final),) = renames.items()
        _rename(new, final, about=final)
        return
    finals = [*renames.values(), *gone]
    if not finals:
        return
    folder, marker = finals[0].parent, uuid.uuid4().hex[:8]
    backups = {final: final.with_name(f".{final.name}.{marker}{_OLD}{HIDDEN}") for final in finals}
    present = {final: backup for final, backup in backups.items() if os.path.lexists(final)}
    journal = folder / f".{marker}{_JOURNAL}{HIDDEN}"
    lines = {
        "old": {final.name: backup.name for final, backup in present.items()},
        "new": {os.path.relpath(new, folder): final.name for new, final in renames.items()},
    }
    with ExitStack() as undo:
        try:
            file = undo.enter_context(journal.open("xb"))
            undo.callback(_forget, journal, tuple(present.values()))
            hold(file)
            _write_through(file, json.dumps(lines).encode() + b"\n")
        except OSError as error:
            raise cannot_write(finals[-1], error) from error
        for final, backup in present.items():
            _rename(final, backup, about=final)
            undo.callback(_rename, backup, final, about=backup)
        for new, final in renames.items():
            _rename(new, final, about=final)
            undo.callback(_rename, final, new, about=final)
        try:
            _write_through(file, b"done\n")
        except OSError as error:
            raise cannot_write(finals[-1], error) from error
        undo.pop_all()
        with file:
            for backup in present.values():
                discard(backup)
            discard(journal)


def _forget(journal: Path, backups: Collection[Path]) -> None:
    """Remove a journal whose old files are all back; else ``sweep`` needs it."""
    if not any(map(os.path.lexists, backups)):
        discard(journal)


def _write_through(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _settle(journal: Path) -> None:
    """End what a journal says was begun: the new state when it is done, else the old one."""
    lines = journal.read_bytes().split(b"\n")
    folder = journal.parent
    try:
        entry = json.loads(lines[0]) if len(lines) > 1 else {"old": {}, "new": {}}  # else killed before anything moved
        old = [(_inside(folder, backup, 1), _inside(folder, final, 1)) for final, backup in entry["old"].items()]
        new = [(_inside(folder, source, 2), _inside(folder, final, 1)) for source, final in entry["new"].items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # no journal of ours
    if len(lines) > 1 and lines[1] == b"done":
        for backup, _ in old:
            discard(backup)
    else:
        for source, final in reversed(new):
            # Moved already, if it is not where it came from any more.
            if os.path.lexists(final) and not os.path.lexists(source) and source.parent.is_dir():
                os.replace(final, source)
        for backup, final in old:
            if os.path.lexists(backup):
                os.replace(backup, final)
    discard(journal)


def _inside(folder: Path, name: str, parts: int) -> Path:
    """The path of a name in a journal, which must not lead out of the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not 1 <= len(pure.parts) <= parts:
        raise ValueError(name)
    return folder / name


def discard(path: Path) -> None:
    """Remove a file if it is there and can be removed; what went wrong before matters more."""
    with suppress(OSError):
        path.unlink()


def refuse_existing(path: Path, *, force: bool) -> None:
    """Refuse a name under which something stands already.

    Raises:
        OutputError: it is a folder, or a file and ``force`` is False.
    """
    refuse_folder(path)
    if os.path.exists(path) and not force:
        raise OutputError(
            str(path), expected="a new file", found="an existing one", way_out="choose another name, or use --force"
        )


def refuse_folder(path: Path) -> None:
    """Refuse the name of a folder where a file is to be written.

    Raises:
        OutputError: it is one.
    """
    # os.path and not pathlib: a name that the file system cannot hold is refused when it is written.
    if os.path.isdir(path):
        raise OutputError(str(path), expected="the name of a file", found="a directory", way_out="add a file name")


def refuse_input(path: Path, *inputs: object) -> None:
    """Refuse to write over what is read, under whatever name: through links, or in other letters where they are one.

    Args:
        path: to be written.
        inputs: paths that are read; whatever is no path is none.

    Raises:
        OutputError: it is one of them.
    """
    for given in inputs:
        if isinstance(given, str | os.PathLike):
            with suppress(OSError, ValueError):  # what is not there is not overwritten
                if os.path.samefile(path, given):
                    raise OutputError(
                        str(path),
                        expected="an output that is no input",
                        found=f"the file that is read as {os.fspath(given)}",
                        way_out="choose another name",
                    )


def cannot_write(path: str | Path, error: OSError, *, expected: str = "a file that can be written") -> OutputError:
    """Return in one sentence what the operating system said about a file or folder; to be raised from it."""
    return OutputError(
        str(path),
        expected=expected,
        found=error.strerror or str(error) or type(error).__name__,
        way_out="choose another place",
    )


def _rename(source: Path, target: Path, *, about: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        raise cannot_write(about, error) from error
