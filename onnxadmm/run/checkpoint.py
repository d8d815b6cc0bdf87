"""The checkpoint of a run: all it needs to go on, in one file that is old or new but never half written.

The file is an ``.npz`` without pickled objects. ``header`` holds a ``Header`` as JSON in UTF-8 (uint8); every other
array belongs to the state of the stage the run is in (see ``Training``). Trained weights are found under
``prune/solver/weights/NAME`` and ``retrain/weights/NAME``.
"""

import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.state import State
from onnxadmm.errors import CheckpointError, OutputError
from onnxadmm.files import discard
from onnxadmm.progress import Iteration
from onnxadmm.report.codec import MismatchError, decode, dumps, encode

SCHEMA: Final = "onnxadmm.checkpoint/3"
_HEADER: Final = "header"
_INTERRUPTED: Final = "the interrupted run"
#: Writing takes place at most this often, and never takes more than a twentieth of the time.
_SECONDS_BETWEEN: Final = 10.0
_SHARE_OF_TIME: Final = 0.05


@dataclass(frozen=True)
class Header:
    """What a checkpoint says about its run.

    Attributes:
        sha256: of the original model.
        data: digest of the training data.
        options: those that change the result, by name, as text.
        history: every iteration so far.
        seconds: spent on each stage so far.
        left: share of the network that may stay, as the run began.
    """

    schema: Literal["onnxadmm.checkpoint/3"]
    sha256: str
    data: str
    options: Mapping[str, str]
    history: tuple[Iteration, ...]
    seconds: Mapping[str, float]
    left: float

    def refuse_other_run(self, *, sha256: str, options: Mapping[str, str], but: Collection[str] = frozenset()) -> None:
        """Refuse to go on with another model or other options.

        Args:
            but: options that may differ.

        Raises:
            CheckpointError: the first that differs, by name.
        """
        refuse_other_model(self.sha256, sha256)
        refuse_other_options(self.options, options, but=but)

    def refuse_other_data(self, data: str) -> None:
        """Refuse to go on with other training data.

        Raises:
            CheckpointError: they are others.
        """
        refuse_other_data(self.data, data)


def refuse_other_model(before: str, now: str, *, like: str = _INTERRUPTED) -> None:
    """Refuse another model than that of a run before, by their sha256.

    Args:
        like: that run, in words.

    Raises:
        CheckpointError: it is another.
    """
    if before != now:
        raise _other("the model", expected=f"the one with sha256 {before[:12]}", found=now[:12], like=like)


def refuse_other_options(
    before: Mapping[str, str],
    now: Mapping[str, str],
    *,
    but: Collection[str] = frozenset(),
    like: str = _INTERRUPTED,
) -> None:
    """Refuse other options than those of a run before, as text by name.

    Args:
        but: options that may differ.
        like: that run, in words.

    Raises:
        CheckpointError: the first that differs, by name.
    """
    for name in sorted((before.keys() | now.keys()) - set(but)):
        expected, found = before.get(name, "none"), now.get(name, "none")
        if expected != found:
            raise _other(name, expected=expected, found=found, like=like)


def refuse_other_data(before: str, now: str, *, like: str = _INTERRUPTED) -> None:
    """Refuse other data than those of a run before, by their digests.

    Args:
        like: that run, in words.

    Raises:
        CheckpointError: they are others.
    """
    if before != now:
        raise _other("--data", expected=f"the data with digest {before[:12]}", found=now[:12], like=like)


def options_as_text(values: Mapping[str, object]) -> dict[str, str]:
    """Options by their names on the command line, given the names of fields; values as text that tells them apart."""
    return {
        f"--{name.replace('_', '-')}": "none"
        if value is None
        else json.dumps(value, sort_keys=True, default=lambda array: np.asarray(array).tolist())
        for name, value in values.items()
    }


class Checkpoints:
    """Keeps the state of a run, and writes it now and then.

    Args:
        path: of the file, in an existing folder; None writes nothing.
        header: called for every state that is kept.
    """

    def __init__(
        self, path: Path | None, header: Callable[[], Header], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._header = header
        self._clock = clock
        self._next = clock() + _SECONDS_BETWEEN
        self._waiting: tuple[Header, State] | None = None

    def keep(self, state: State) -> None:
        """Write a state, or remember a copy of it where the last one was written a moment ago.

        Raises:
            OutputError: it cannot be written; the one before is still there.
        """
        if self._path is None:
            return
        if self._clock() < self._next:
            self._waiting = (self._header(), {name: array.copy() for name, array in state.items()})
            return
        self._waiting = None
        self._write(self._path, self._header(), state)

    def flush(self) -> None:
        """Write what ``keep`` only remembered.

        Raises:
            OutputError: it cannot be written.
        """
        if self._path is not None and self._waiting is not None:
            (header, state), self._waiting = self._waiting, None
            self._write(self._path, header, state)

    def _write(self, path: Path, header: Header, state: State) -> None:
        begin = self._clock()
        write_checkpoint(path, header, state)
        end = self._clock()
        self._next = end + max(_SECONDS_BETWEEN, (end - begin) / _SHARE_OF_TIME)


def write_checkpoint(path: Path, header: Header, state: State) -> None:
    """Replace a checkpoint at once: under its name stands the old one or the new.

    Raises:
        OutputError: it cannot be written; what was there stays.
    """
    text = np.frombuffer(dumps(encode(header)).encode(), np.uint8)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in {_HEADER: text, **state}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        temporary.replace(path)
    except OSError as error:
        discard(temporary)
        raise OutputError(
            str(path),
            expected="a checkpoint that can be written",
            found=error.strerror or type(error).__name__,
            way_out="make room, and continue from the last one with --resume"
            if path.exists()
            else "make room, and begin again; nothing was kept so far",
        ) from error


def read_checkpoint(path: Path) -> tuple[Header, dict[str, NDArray[Any]]]:
    """Read a checkpoint as a whole.

    Raises:
        CheckpointError: it cannot be read, is damaged, or is something else.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        # Not numpy.load, which takes one of the names ``a`` and ``a.npy`` for the other.
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
                    if file.read(1):
                        raise ValueError(f"{name} goes on behind its array")
        document = json.loads(arrays.pop(_HEADER).tobytes())
        if isinstance(document, dict) and document.get("schema") != SCHEMA:
            raise _unreadable(path, f"the schema {document.get('schema')!r}")
        header = decode(Header, document)
    except MismatchError as error:
        raise _unreadable(path, f"a header with {error.where or 'no fields'}: {error.found}") from error
    except KeyError as error:
        raise _unreadable(path, "an archive of something else") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, RuntimeError, MemoryError, zlib.error) as error:
        raise _unreadable(path, f"a damaged file ({error})") from error
    return header, arrays


def _unreadable(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        str(path), expected=f"a checkpoint of schema {SCHEMA}", found=found, way_out="begin again with --force"
    )


def _other(thing: str, *, expected: str, found: str, like: str) -> CheckpointError:
    return CheckpointError(
        thing,
        expected=f"{expected}, as in {like}",
        found=found,
        way_out="ask for the same, or begin again with --force",
    )
