"""Custom-operator libraries: which ones every session of a call registers, and whether each is fit to be registered.

They are not handed from function to function: whoever opens a session, at whatever depth, asks which are in use.
``custom_operators`` says so for the block it opens, for this thread alone, and takes it back at its end; processes
that are started meanwhile are told by ``paths_in_use`` in their orders.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnxadmm.child_process import command, ending, environment
from onnxadmm.errors import CustomOperatorError

#: What tries a library out.
PROGRAM: Final = ("-m", "onnxadmm.runtime.try_library")
_PATIENCE: Final = 60.0
_TOO_NEW: Final = re.compile(r"API version \[(\d+)\] is not available, only API versions? \[\d+, (\d+)\]", re.I)


@dataclass(frozen=True)
class Library:
    """A custom-operator library that this onnxruntime takes.

    Attributes:
        path: absolute.
        sha256: of the file.
    """

    path: Path
    sha256: str

    def refusal(self, found: str, *, way_out: str = "check the file, or build it again") -> CustomOperatorError:
        """Return the refusal of this library."""
        return CustomOperatorError(
            str(self.path),
            expected="a custom-operator library that this onnxruntime registers",
            found=found,
            way_out=way_out,
        )


_in_use: ContextVar[tuple[Library, ...]] = ContextVar("custom_operator_libraries", default=())
_tried: set[Library] = set()


def libraries_in_use() -> tuple[Library, ...]:
    """The libraries that every session opened here registers, in the order they were given."""
    return _in_use.get()


def paths_in_use() -> list[str]:
    """Their paths, for the order of a process that opens sessions too."""
    return [str(library.path) for library in libraries_in_use()]


@contextmanager
def custom_operators(paths: Sequence[str | Path], *, tried: bool = False) -> Iterator[tuple[Library, ...]]:
    """Register libraries of custom operators with every session that is opened in this block and thread.

    Blocks may stand in one another; the libraries of the outer ones stay in use. A library is tried out in a process
    of its own first, since one that was built for another onnxruntime may end the process that loads it.

    Args:
        paths: shared libraries with the entry point ``RegisterCustomOps``.
        tried: whether whoever started this process has tried them already.

    Yields:
        All libraries in use.

    Raises:
        CustomOperatorError: a library is missing, is no custom-operator library, or does not fit this onnxruntime.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    libraries = list(libraries_in_use())
    for path in paths:
        library = _read(path)
        if library in libraries:
            continue
        if not tried and library not in _tried:
            _try(library)
        _tried.add(library)
        libraries.append(library)
    token = _in_use.set(tuple(libraries))
    try:
        yield tuple(libraries)
    finally:
        _in_use.reset(token)


def _read(path: str | Path) -> Library:
    """Find a library and take its fingerprint."""
    try:
        whole = Path(path).resolve()
        return Library(whole, hashlib.sha256(whole.read_bytes()).hexdigest())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        plain: dict[type[Exception], str] = {FileNotFoundError: "no such file", IsADirectoryError: "a directory"}
        raise CustomOperatorError(
            str(path),
            expected="a custom-operator library",
            found=plain.get(type(error), str(error)),
            way_out="check the path and the spelling",
        ) from error


def _try(library: Library) -> None:
    """Register a library in a process of its own, and open a session with it.

    Raises:
        CustomOperatorError: that failed, or ended the process.
    """
    words = [*command(*PROGRAM), str(library.path)]
    try:
        done = subprocess.run(words, capture_output=True, env=environment(), timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise library.refusal(f"no answer within {_PATIENCE:g} s while registering") from None
    told = (done.stderr + done.stdout).decode(errors="replace")
    too_new = _TOO_NEW.search(told)
    lines = done.stdout.decode(errors="replace").splitlines()
    answer = json.loads(lines[-1]) if done.returncode == 0 and lines else {}
    error = answer.get("error", "")
    newer = re.search(r"Unsupported version '(\d+)'", error)
    if too_new is not None or newer is not None:
        version = too_new[1] if too_new is not None else newer[1] if newer is not None else ""
        raise library.refusal(
            f"one that was built for API version {version} of onnxruntime, a newer one",
            way_out="build it with headers no newer than the installed onnxruntime, or use a newer onnxruntime",
        )
    if done.returncode < 0:
        raise library.refusal(
            f"{ending(done.returncode)} while registering",
            way_out="build it with headers no newer than the installed onnxruntime, and check its own code",
        )
    if not answer:
        raise library.refusal(f"{ending(done.returncode, told)} while registering")
    if "symbol RegisterCustomOps" in error:
        raise library.refusal("a library without the entry point RegisterCustomOps")
    if error:
        raise library.refusal(f"a refusal: {error}")
