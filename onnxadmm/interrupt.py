"""Ctrl-C that also ends a process in which native code runs.

Python's own handler is called between two steps of Python, and one step may be a run of a large network that takes
minutes. So a thread listens as well. Where the main thread has not taken notice a moment later, the thread clears
temporary files away and ends the process.
"""

import atexit
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

#: What a shell says of a process that was ended by Ctrl-C.
STATUS: Final = 130
#: Seconds in which temporary files are cleared away.
_CLEARING: Final = 1.0


@contextmanager
def ending_on_ctrl_c(grace: float) -> Iterator[None]:
    """Let Ctrl-C end what runs here, at the latest ``grace`` seconds later.

    In the main thread alone, and where nobody else handles the signal; elsewhere it does nothing.

    Args:
        grace: seconds in which the main thread may take notice: then ``KeyboardInterrupt`` is raised as ever.
    """
    free = threading.current_thread() is threading.main_thread()
    if not free or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    noticed = threading.Event()

    def raise_it(_: int, __: FrameType | None) -> None:
        noticed.set()
        raise KeyboardInterrupt

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    listener = threading.Thread(target=_listen, args=(ours, noticed, grace), daemon=True)
    signal.signal(signal.SIGINT, raise_it)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # The end of what is sent ends the thread.
        theirs.close()
        listener.join()
        ours.close()


def _listen(ours: socket.socket, noticed: threading.Event, grace: float) -> None:
    while numbers := ours.recv(64):
        if signal.SIGINT in numbers and not noticed.wait(grace):
            _end()
        noticed.clear()


def _end() -> None:
    """End the process without asking the main thread, temporary files and child processes first."""
    watch = threading.Timer(_CLEARING, os._exit, [STATUS])
    watch.daemon = True
    watch.start()
    with suppress(Exception):
        atexit._run_exitfuncs()
    os._exit(STATUS)
