"""How much memory this process and those that it has started have at most, as the system counts it."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROCESSES: Final = Path("/proc")
#: What resets the highest figure of a process: proc_pid_clear_refs(5).
_RESET: Final = "5"


class Gauge:
    """The largest memory since it was reset: of this process, and of its children that still run.

    Resetting changes what others read of this process, so that it belongs into a process of its own. Elsewhere than on
    Linux nothing is read.
    """

    def reset(self) -> None:
        """Forget what was so far."""
        with suppress(OSError):
            (_PROCESSES / "self" / "clear_refs").write_text(_RESET)

    def peak(self) -> int:
        """Return the bytes; 0 where the system does not say. What processes share counts once."""
        if sys.platform != "linux":
            return 0
        own = _figures(_PROCESSES / "self")
        # Children have whatever they share from this process.
        others = (_figures(_PROCESSES / child) for child in _children(os.getpid()))
        return own.get("VmHWM", 0) + sum(found.get("VmHWM", 0) - found.get("RssShmem", 0) for found in others)


def _children(parent: int) -> list[str]:
    found: list[str] = []
    for folder in _PROCESSES.iterdir():
        if folder.name.isdecimal() and _figures(folder).get("PPid") == parent:
            found += [folder.name, *_children(int(folder.name))]
    return found


def _figures(folder: Path) -> dict[str, int]:
    """What the system says of a process: bytes, and numbers that have no unit; nothing where it is gone."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in (folder / "status").read_text().splitlines():
            name, _, text = line.partition(":")
            words = text.split()
            if words and words[0].isdecimal():
                found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found
