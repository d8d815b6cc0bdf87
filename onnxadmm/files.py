"""Files under their final names: never half of one, and of several all or none."""

import os
import uuid
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from onnxadmm.errors import OutputError


def put_in_place(renames: Mapping[Path, Path], *, gone: Collection[Path] = ()) -> None:
    """Rename files to their final names, all of them or none.

    What stands under a final name steps aside first, under a hidden name beside it, and is deleted at the end; when
    anything fails before that, the new names are freed again and the old files return to theirs.

    Args:
        renames: new file to final name, both on one file system; renamed in this order.
        gone: further files that are to disappear with the old state; missing ones are no error.

    Raises:
        OutputError: a file cannot be renamed; the old state is back.
    """
    if len(renames) == 1 and not any(map(os.path.lexists, gone)):
        ((new, final),) = renames.items()
        _rename(new, final, about=final)
        return
    marker = uuid.uuid4().hex[:8]
    backups = []
    with ExitStack() as undo:
        for final in (*renames.values(), *gone):
            if os.path.lexists(final):
                backup = final.with_name(f".{final.name}.{marker}.old")
                _rename(final, backup, about=final)
                undo.callback(_rename, backup, final, about=backup)
                backups.append(backup)
        for new, final in renames.items():
            _rename(new, final, about=final)
            undo.callback(_rename, final, new, about=final)
        undo.pop_all()
    for backup in backups:
        discard(backup)


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
