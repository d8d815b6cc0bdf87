"""How this package starts Python processes of its own."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Final

#: In the environment of a child: the process that started it.
_PARENT: Final = "ONNXADMM_PARENT_PROCESS"
_SECONDS_BETWEEN_LOOKS: Final = 0.5
_KILLED: Final = -9  # SIGKILL, which Windows does not name
_SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


def command(*words: str) -> list[str]:
    """Return the words of a command for the interpreter; modules that lie in the working folder stay out of its way."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """Return the environment in which a child finds every module where its parent finds it."""
    # The empty path stands for the working folder.
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**os.environ, "PYTHONPATH": paths, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Let this child end as soon as its parent has, in whatever way that was; to be called first.

    Linux sends it a signal, also while it computes; elsewhere a thread looks twice a second. A process that no
    ``environment`` was given has no parent to end with.
    """
    parent = os.environ.pop(_PARENT, "")
    if sys.platform == "win32" or not parent.isdecimal():
        return
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library without it: the thread looks
            ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)  # it was gone before it could be asked for a signal
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def ending(status: int, said: bytes | str = b"", *, of: str = "") -> str:
    """Say how a process has ended, as a noun for the middle of a sentence.

    Args:
        status: its exit status, negative for a signal.
        said: what it wrote to stderr, of which the last line is quoted where it failed by itself.
        of: whose end it was, such as ``onnxruntime``.
    """
    whose = f" of {of}" if of else ""
    if status == _KILLED:
        return "a kill by the system (SIGKILL), as when memory runs out"
    if status < 0:
        return f"a crash{whose} ({_signal_name(-status)})"
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    words = next((line.strip()[:300].rstrip(".") for line in reversed(text.splitlines()) if line.strip()), "")
    end = f"a failure{whose} with exit status {status}" if status else f"an early end{whose}"
    return end + (f" ({words})" if words else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
