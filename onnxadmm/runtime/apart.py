"""Sessions in a process of their own, for models on which native code may crash.

One child serves all sessions of a thread's models until it dies; a crash ends the child and is raised here. What a
child does can also be ended at any moment, which a native call in this process cannot.
"""

import atexit
import itertools
import os
import pickle
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onnxadmm.child_process import command, ending, environment

#: Seconds for one order: to open a model, or to run it once.
PATIENCE: Final = 900.0
_PROGRAM: Final = str(Path(__file__).with_name("apart_child.py"))


class CrashError(RuntimeError):
    """The child ended, or did not answer; the message says how, for the middle of a sentence.

    Attributes:
        slow: it did not answer in time.
    """

    def __init__(self, message: str, *, slow: bool = False) -> None:
        super().__init__(message)
        self.slow = slow


class RefusedError(RuntimeError):
    """What onnxruntime raised in the child, in its own words."""


@dataclass(frozen=True)
class Argument:
    """An input or output, as onnxruntime describes it."""

    name: str
    type: str
    shape: Sequence[Any]


class Child:
    """The process. It is started with the first order, and anew with the first order after its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: Any = None
        self._owner = os.getpid()
        self.generation = 0

    def order(self, *words: Any, patience: float = PATIENCE) -> Any:
        """Give an order and wait for the answer.

        Raises:
            CrashError: the process ended or did not answer in time; it is gone.
            RefusedError: onnxruntime raised something.
        """
        with self._lock:
            process = self._running()
            rang: list[bool] = []

            def ring_out() -> None:
                rang.append(True)
                process.kill()

            ring = threading.Timer(patience, ring_out)
            ring.daemon = True
            ring.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                pickle.dump(words, process.stdin, protocol=5)
                process.stdin.flush()
                kind, result = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                if rang:
                    self.end()
                    raise CrashError(f"no end within {patience:g} s", slow=True) from error
                raise CrashError(self._obituary(process)) from error
            except BaseException:
                # An answer that nobody waits for any more would be taken for that of the next order.
                self.end()
                raise
            finally:
                ring.cancel()
        if kind == "failed":
            raise RefusedError(result)
        return result

    def current(self) -> int:
        """Return the number of the process, another one than before where it has ended meanwhile."""
        if self._process is not None and self._process.poll() is not None:
            self.end()
        return self.generation

    def end(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        # Sessions that were opened in it have to be opened anew.
        self.generation += 1
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, self._complaints):
            if stream is not None:
                # What a killed process did not take can no longer be flushed.
                try:
                    stream.close()
                except OSError:
                    continue

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._owner != os.getpid():
            # Forked: the pipes are the parent's.
            self._process, self._complaints, self._owner = None, None, os.getpid()
            self.generation += 1
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            # A session of its own: Ctrl-C is for this process, which ends the child.
            self._process = subprocess.Popen(
                command(_PROGRAM),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=environment(),
                start_new_session=True,
            )
        return self._process

    def _obituary(self, process: "subprocess.Popen[bytes]") -> str:
        try:
            status = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._complaints.seek(0)
        said = self._complaints.read()
        self.end()
        return ending(status, said, of="onnxruntime")


def run_apart(program: str, *words: str, patience: float = PATIENCE) -> None:
    """Run a Python program to its end in a child of its own.

    Args:
        program: its text.
        words: its arguments.
        patience: seconds it may take.

    Raises:
        CrashError: it crashed, took too long, or ended with another status than 0; the message says how.
    """
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command("-c", program, *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=environment(),
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CrashError(f"no end within {patience:g} s", slow=True) from error
        complaints.seek(0)
        said = complaints.read()
    if done.returncode:
        raise CrashError(ending(done.returncode, said))


_child = Child()
_keys = itertools.count()
atexit.register(_child.end)


class ApartSession:
    """An onnxruntime session in the child, with the methods of one in this process that are needed here.

    Args:
        model: serialised, or a file.
        options: fields of ``SessionOptions``, see ``build_options``.
        libraries: paths of custom-operator libraries.

    Raises:
        CrashError: opening it ended the child.
        RefusedError: onnxruntime does not load it.
    """

    def __init__(self, model: bytes | Path, options: Mapping[str, Any], libraries: Sequence[str]) -> None:
        self._key = next(_keys)
        self._order = (str(model) if isinstance(model, Path) else model, dict(options), list(libraries))
        self._inputs: list[Argument] = []
        self._outputs: list[Argument] = []
        self._generation = -1
        self._open()

    def _open(self) -> None:
        inputs, outputs = _child.order("open", self._key, *self._order)
        self._inputs, self._outputs = ([Argument(*each) for each in values] for values in (inputs, outputs))
        self._generation = _child.generation

    def get_inputs(self) -> list[Argument]:
        """Return what must be fed."""
        return self._inputs

    def get_outputs(self) -> list[Argument]:
        """Return what comes out."""
        return self._outputs

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run the model once, in a new child where another session's crash took the last one along.

        Raises:
            CrashError, RefusedError: as when it was opened.
        """
        if self._generation != _child.current():
            self._open()
        result: list[Any] = _child.order("run", self._key, list(names), dict(feed))
        return result

    def close(self) -> None:
        """Free the model."""
        if self._generation == _child.current():
            try:
                _child.order("close", self._key)
            except (CrashError, RefusedError):
                return
