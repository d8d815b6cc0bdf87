"""How this package starts Python processes of its own."""

import os
import signal
import sys


def command(*words: str) -> list[str]:
    """Return the words of a command for the interpreter; modules that lie in the working folder stay out of its way."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """Return the environment in which a child finds every module where its parent finds it."""
    # The empty path stands for the working folder.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def signal_name(number: int) -> str:
    """Name a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
